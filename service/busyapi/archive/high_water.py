"""The high-water mark: the largest seq that this archive ever held, whatever files it has now.

    <root>/p00/highwater       two lines of fixed width, written in turn

The cursor follows from the files, so it cannot show that the newest file is missing. Nor can it
distinguish a last block that was synced and then changed from one that was never synced. The mark
can. It is written after the sync of the seqs that it covers and before they are published, so it
never covers a seq that was not on disk.

Each flush costs one write of 78 bytes into the page cache and no fsync: if the process is killed,
the mark is exact. It is synced when a file is finished, so after a power cut it is at least that
old value. A low or missing mark (0.2.0 writes none) proves less, but never reports a loss that did
not happen. So a failed write of the mark is ignored: it must not stop archiving.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Self
from zlib import crc32

from busyapi.archive import paths
from busyapi.archive.fsync import sync_file, write_at, write_small_file
from busyapi.errors import FsyncFailed
from busyapi.ids import Seq

NO_MARK = Seq(0)
"""The value of a missing mark: nothing is known."""

_LINE = re.compile(rb"(busyapi-highwater (\S+) (\d{16})) ([0-9a-f]{8})")


class HighWaterMark:
    """The mark of a partition that this process has locked."""

    def __init__(self, fd: int | None, archive_id: str, seq: Seq) -> None:
        self.seq = seq
        """The largest seq that was ever on disk, as far as is known."""
        self._fd = fd
        self._archive_id = archive_id
        self._slot = 0

    @classmethod
    def create(cls, folder: Path, archive_id: str, seq: Seq) -> Self:
        """Put a mark on disk in a new file: a fenced-off writer may still write the old one.

        Without space for a new file the existing one is overwritten in place. If there is no file
        either, the mark is kept in memory only.
        """
        line = _render_mark(archive_id, seq)
        with suppress(OSError, FsyncFailed):
            write_small_file(folder / paths.HIGH_WATER_NAME, line + line)
        fd = None
        with suppress(OSError):
            fd = os.open(folder / paths.HIGH_WATER_NAME, os.O_RDWR)
        return cls(fd, archive_id, seq)

    def advance(self, seq: Seq) -> None:
        """Raise the mark to a seq that is on disk."""
        if seq <= self.seq:
            return
        self.seq = seq
        if self._fd is not None:
            line = _render_mark(self._archive_id, seq)
            # Alternate: if this write is torn, the other line is still valid.
            self._slot = 1 - self._slot
            with suppress(OSError):
                write_at(self._fd, line, self._slot * len(line))

    def sync(self) -> None:
        """Put the mark on disk."""
        if self._fd is not None:
            with suppress(FsyncFailed):
                sync_file(self._fd, paths.HIGH_WATER_NAME)

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None


def read_mark(folder: Path, archive_id: str) -> Seq:
    """Return the mark of an archive; NO_MARK if no line of it has a valid checksum."""
    marks = (seq for owner, seq in _read_marks(folder) if owner == archive_id)
    return max(marks, default=NO_MARK)


def has_mark(folder: Path) -> bool:
    """Return whether the folder holds a mark of any archive."""
    return bool(_read_marks(folder))


def _read_marks(folder: Path) -> list[tuple[str, Seq]]:
    try:
        data = (folder / paths.HIGH_WATER_NAME).read_bytes()
    except OSError:
        return []
    return [
        (match[2].decode("ascii", "replace"), Seq(int(match[3])))
        for match in _LINE.finditer(data)
        if match[4] == _crc(match[1])
    ]


def _render_mark(archive_id: str, seq: Seq) -> bytes:
    text = f"busyapi-highwater {archive_id} {seq:016d}".encode()
    return text + b" " + _crc(text) + b"\n"


def _crc(text: bytes) -> bytes:
    return b"%08x" % crc32(text)
