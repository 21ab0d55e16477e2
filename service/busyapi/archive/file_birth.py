"""The name of a file that no copy of it shares: when the file system made it.

No program can set a file's birth time, and renaming, writing and changing owner or mode keep it.
So a file that states its own birth is the original, and a copy of it is known as one. Snapshots of
a whole volume keep it too: they are not told apart.
"""

import ctypes
import os
import struct

_EMPTY_PATH = 0x1000
_BTIME = 0x800
_AT_MASK, _AT_BTIME = 0, 80
_SIZE = 256
_libc = ctypes.CDLL(None, use_errno=True)


def read_birth(fd: int) -> str:
    """Return the birth time of an open file, or its inode number where there is no birth time."""
    nanoseconds = _birth_ns(fd)
    return f"born:{nanoseconds}" if nanoseconds else f"inode:{os.fstat(fd).st_ino}"


def matches_birth(recorded: str, fd: int) -> bool:
    """Return whether this is what `read_birth` returned for the open file."""
    # Where the file system has learned to keep birth times since, the inode number still counts.
    return recorded in {read_birth(fd), f"inode:{os.fstat(fd).st_ino}"}


def _birth_ns(fd: int) -> int:
    """Return the birth time in nanoseconds since 1970, 0 if it is not known."""
    found = ctypes.create_string_buffer(_SIZE)
    try:
        failed = _libc.statx(fd, b"", _EMPTY_PATH, _BTIME, found)
    except AttributeError:  # this C library has no statx
        return 0
    if failed or not struct.unpack_from("<I", found, _AT_MASK)[0] & _BTIME:
        return 0
    seconds, nanoseconds = struct.unpack_from("<qI", found, _AT_BTIME)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
