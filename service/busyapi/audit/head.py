"""The head of a trail: number and hash of its last record, in a file of its own.

The chain alone cannot show that its end was cut off. The head can. It is written after the sync of
the records that it covers and before they are confirmed, in two lines in turn: if one write is
torn, the other line is still valid. Like the archive's high-water mark it is synced only when a
file ends: after a kill it is exact, after a power cut it may be older than the files, never newer.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from busyapi.archive.fsync import sync_file, write_at
from busyapi.audit.files import HEAD_NAME, give_to_owner
from busyapi.errors import FsyncFailed

_LINE = re.compile(rb"(busyapi-audit (\d{16}) ([0-9a-f]{64})) ([0-9a-f]{8})\n")
LINE_BYTES = len(b"busyapi-audit ") + 16 + 1 + 64 + 1 + 8 + 1


class Head(NamedTuple):
    """The number and the hash of a record."""

    seq: int
    hash: str


def read_head(folder: Path) -> Head | None:
    """Return the head of a trail; None if no line of its file is valid."""
    try:
        data = (folder / HEAD_NAME).read_bytes()
    except OSError:
        return None
    heads = [
        Head(int(match[2]), match[3].decode())
        for match in _LINE.finditer(data)
        if match[4] == b"%08x" % crc32(match[1])
    ]
    return max(heads, default=None)


def write_head(folder: Path, head: Head, *, sync: bool) -> None:
    """Write the head of a trail.

    A failure is ignored: an old head shows less, but never reports a loss that did not happen.
    """
    text = b"busyapi-audit %016d %b" % (head.seq, head.hash.encode())
    line = b"%b %08x\n" % (text, crc32(text))
    with suppress(OSError, FsyncFailed):
        fd = os.open(folder / HEAD_NAME, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            give_to_owner(fd, folder)
            write_at(fd, line, _choose_slot(fd) * LINE_BYTES)
            if sync:
                sync_file(fd, HEAD_NAME)
        finally:
            os.close(fd)


def _choose_slot(fd: int) -> int:
    """Return the line that is not the newest valid one."""
    match = _LINE.fullmatch(os.pread(fd, LINE_BYTES, 0))
    other = _LINE.fullmatch(os.pread(fd, LINE_BYTES, LINE_BYTES))
    if not match or match[4] != b"%08x" % crc32(match[1]):
        return 0
    return 0 if other and int(other[2]) > int(match[2]) else 1
