"""A file's birth: when the file system created it, which distinguishes a file from its copies.

No program can set a birth time, and renaming the file, writing it or changing its owner or mode
keeps it. So a file that states its own birth is the original, and a copy of it states another
file's. A snapshot of a whole volume keeps birth times: it cannot be recognized as a copy.
"""

import ctypes
import os
import struct

_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800
_MASK_OFFSET, _BTIME_OFFSET = 0, 80
_STATX_BYTES = 256
_libc = ctypes.CDLL(None, use_errno=True)


def read_birth(fd: int) -> str:
    """Return the birth time of an open file, or its inode number if it has no birth time."""
    nanoseconds = _birth_ns(fd)
    return f"born:{nanoseconds}" if nanoseconds else f"inode:{os.fstat(fd).st_ino}"


def matches_birth(recorded: str, fd: int) -> bool:
    """Return whether `recorded` is what `read_birth` returned for the open file."""
    # The inode number still counts on a file system that has gained birth times since.
    return recorded in {read_birth(fd), f"inode:{os.fstat(fd).st_ino}"}


def _birth_ns(fd: int) -> int:
    """Return the birth time in nanoseconds since 1970, 0 if it is unknown."""
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    try:
        failed = _libc.statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer)
    except AttributeError:  # this C library has no statx
        return 0
    if failed or not struct.unpack_from("<I", buffer, _MASK_OFFSET)[0] & _STATX_BTIME:
        return 0
    seconds, nanoseconds = struct.unpack_from("<qI", buffer, _BTIME_OFFSET)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
