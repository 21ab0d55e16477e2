"""Become a program that the kernel signals when its parent dies.

    python -I -S pdeathsig.py SIGNAL PARENT PROGRAM ARGUMENT...

It is a separate program. Between fork and exec, a lock of another thread could be held forever. It
is run by its path and imports nothing of busyapi, so that it starts fast.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(signal: str, parent: str, *program: str) -> None:
    """Ask for a signal when the parent dies, and replace this process by the program."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal))
        # The parent may have died just before.
        if os.getppid() != int(parent):
            sys.exit(1)
    # On other systems a SIGKILL of the parent leaves its children; the state folder's lock detects
    # them.
    os.execv(program[0], program)  # noqa: S606 - no shell on purpose


if __name__ == "__main__":
    main(*sys.argv[1:])
