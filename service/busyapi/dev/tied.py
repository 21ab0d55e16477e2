"""Become a program that the kernel signals when its parent dies.

    python -I -S tied.py SIGNAL PARENT PROGRAM ARGUMENT...

A program of its own rather than code between fork and exec: there, another thread's lock could
be held for good. It is run by its path and imports nothing of ours, so it starts in no time.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(signal: str, parent: str, *program: str) -> None:
    """Tie this process, and run the program in its place."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal))
        # It may have died just before.
        if os.getppid() != int(parent):
            sys.exit(1)
    # Elsewhere a parent killed by -9 leaves its children; the state folder's lock tells of them.
    os.execv(program[0], program)  # noqa: S606 - no shell on purpose


if __name__ == "__main__":
    main(*sys.argv[1:])
