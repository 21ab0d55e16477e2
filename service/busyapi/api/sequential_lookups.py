"""Detects clients that enumerate ids, and so read usages of other clients.

The ids are divided into blocks. For each client and block, this process remembers which ids the
client asked for: its credential, or without one its network. After some ids of a block, each
further one is sequential. So nothing changes if a client counts down, in steps or at random, or
asks for others in between, or if its requests are spread over many API processes, each of which
sees a part of a block. The same id again is not sequential, so a client may wait for a usage.

The caller leaves out what a client may always read: usages that it posted itself, and those of the
patient that its credential is bound to.
"""

BLOCK_IDS = 1024
FREE_IDS = 16
"""Ids of a block that a client may ask for. Of 20 processes, each sees 51 ids of a whole block."""
MAX_BLOCKS = 10_000
"""Over this, the block is dropped that was not asked for the longest. They take about 4 MB."""


class SequentialLookups:
    """The lookups of one process."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int], int] = {}
        """By client and block: the ids that were asked for, as bits."""

    def add(self, client: str, usage: int) -> bool:
        """Record a lookup, and return whether it is sequential."""
        block, position = divmod(usage, BLOCK_IDS)
        ids = self._blocks.pop((client, block), 0)
        bit = 1 << position
        self._blocks[client, block] = ids | bit
        if len(self._blocks) > MAX_BLOCKS:
            del self._blocks[next(iter(self._blocks))]
        return not ids & bit and ids.bit_count() >= FREE_IDS
