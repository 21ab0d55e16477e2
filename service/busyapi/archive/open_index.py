"""The index of an open segment of format 2, so that recovery need not decompress its frames.

    _usages-p00-<first>-open.index      entry | entry | …

No usage depends on it, so it is never synced, and it is not even complete: entries are written when
they describe a megabyte of frames. An entry counts only if its own checksum matches, and the
CRC-32 that it states is that of the frame in the segment. So an old, foreign, torn or missing index
costs time: recovery then reads the lines of the frames.
"""

import os
import struct
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from busyapi.archive.format import BlockHeader
from busyapi.archive.fsync import write_at
from busyapi.failpoints import failpoint

WRITE_INTERVAL_BYTES = 1 << 20
"""The bytes of frames after which their entries are written."""
_ENTRY = struct.Struct("<QIIQQQQII")
_CRC = struct.Struct("<I")
_ENTRY_BYTES = _ENTRY.size + _CRC.size


class OpenIndex:
    """The index of an open segment, while it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending = bytearray()
        self._pending_frame_bytes = 0
        self._size = 0
        self._is_given_up = False

    def add(self, offset: int, header: BlockHeader) -> None:
        """Add a frame that is on disk."""
        if self._is_given_up:
            return
        entry = _ENTRY.pack(offset, *header)
        self._pending += entry + _CRC.pack(crc32(entry))
        self._pending_frame_bytes += header.length
        if self._pending_frame_bytes >= WRITE_INTERVAL_BYTES:
            self._write()

    def remove(self) -> None:
        """Remove the file, if this process has written it."""
        if self._size:
            with suppress(OSError):  # the next recovery removes it
                self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        """Write the pending entries. After an error, as on a full volume, recovery does without."""
        flags = os.O_WRONLY | os.O_CREAT | (0 if self._size else os.O_TRUNC)
        try:
            fd = os.open(self._path, flags, 0o640)
            try:
                failpoint("archive-write-open-index")
                write_at(fd, bytes(self._pending), self._size)
            finally:
                os.close(fd)
        except OSError:
            self._is_given_up = True
        self._size += len(self._pending)
        self._pending.clear()
        self._pending_frame_bytes = 0


def read_open_index(path: Path) -> dict[int, BlockHeader]:
    """Return what an index states of its segment's frames, by their offsets.

    The caller compares the frames with it.
    """
    try:
        raw = path.read_bytes()
    except OSError:  # also one that the disk cannot read: the segment itself is what counts
        return {}
    headers = {}
    for at in range(0, len(raw) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
        entry = raw[at : at + _ENTRY.size]
        if _CRC.unpack_from(raw, at + _ENTRY.size)[0] != crc32(entry):
            break
        offset, *header = _ENTRY.unpack(entry)
        headers[offset] = BlockHeader(*header)
    return headers
