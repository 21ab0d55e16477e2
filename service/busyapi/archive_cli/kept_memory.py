"""Memory of a block that is used again for the next one."""

_KEPT_BYTES = 1 << 24
"""More than what is done with a block takes. It is never written to, so it takes no memory."""


def keep_freed_memory() -> None:
    """Let glibc keep the memory of a block.

    glibc gives freed memory back to the kernel, which fills it with zeros when it is used again:
    that took a fifth of a verification's CPU. glibc keeps twice as much as the largest piece of
    memory that was taken from the kernel alone and freed.
    """
    bytes(_KEPT_BYTES)
