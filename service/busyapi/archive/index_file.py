"""The index of a finished segment of format 2: a file next to it, which can be rebuilt.

    _usages-p00-<first>-<last>.index      header | entry, entry, … | sections | CRC-32

It saves time and proves the segment's SHA-256. No usage depends on it: whatever it states is
compared with the segment before it is used. Its name begins with an underscore, so Spark, Hive and
Trino skip it when they read a whole folder.
"""

import os
import struct
from pathlib import Path
from zlib import crc32

from busyapi.archive import paths
from busyapi.archive.format import SegmentIndex, SegmentSummary
from busyapi.archive.fsync import rename_file, sync_file, write_at
from busyapi.archive.paths import ArchiveFile
from busyapi.failpoints import failpoint
from busyapi.ids import Seq, make_usage_id

FORMAT = 2
_MAGIC = b"busyidx\x02"
_HEAD = struct.Struct("<8sIIQQQQQI32s")
_ENTRY_BYTES = 40
_CRC = struct.Struct("<I")


def encode_index(summary: SegmentSummary) -> bytes:
    """Encode an index. Sections may follow the entries; this version writes none."""
    head = _HEAD.pack(
        _MAGIC,
        summary.partition,
        summary.stride,
        summary.first,
        summary.last,
        make_usage_id(summary.first, summary.partition, summary.stride),
        summary.raw_bytes,
        summary.offset,
        len(summary.block_index),
        summary.sha256,
    )
    body = head + summary.block_index.packed
    return body + _CRC.pack(crc32(body))


def decode_index(raw: bytes) -> SegmentSummary | None:
    """Decode an index; None if it is damaged, or of another version. Sections are skipped."""
    body = len(raw) - _CRC.size
    if body < _HEAD.size or _CRC.unpack_from(raw, body)[0] != crc32(raw[:body]):
        return None
    magic, *numbers, blocks, sha256 = _HEAD.unpack_from(raw)
    partition, stride, first, last, first_id, raw_bytes, size = numbers
    end = _HEAD.size + blocks * _ENTRY_BYTES
    if magic != _MAGIC or end > body or blocks == 0:
        return None
    if first_id != make_usage_id(first, partition, stride):
        return None
    index = SegmentIndex(raw[_HEAD.size : end])
    count = last - first + 1
    return SegmentSummary(
        partition, stride, Seq(first), Seq(last), count, raw_bytes, index, size, sha256, FORMAT
    )


def read_index(folder: Path, file: ArchiveFile) -> SegmentSummary | None:
    """Read the index of a segment; None if it is missing, unreadable or of another file."""
    try:
        summary = decode_index((folder / paths.index_path(file)).read_bytes())
    except OSError:  # also one that the disk cannot read: the segment itself is what counts
        return None
    if summary is None or (summary.first, summary.last) != (file.first, file.last):
        return None
    return summary


def write_temporary_index(path: Path, summary: SegmentSummary) -> Path:
    """Put an index on disk under a temporary name; return that name.

    Raises:
        OSError: there is no such file now.
        FsyncFailed: what the disk holds is unknown.
    """
    temporary = path.with_name(path.name + paths.TEMPORARY_SUFFIX)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    try:
        failpoint("archive-write-index")
        write_at(fd, encode_index(summary), 0)
        sync_file(fd, path.name)
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full volume every block counts
        raise
    finally:
        os.close(fd)
    return temporary


def replace_index(folder: Path, file: ArchiveFile, summary: SegmentSummary) -> None:
    """Put an index of a finished segment on disk.

    Raises:
        OSError: the previous state is still there.
        FsyncFailed: what the disk holds is unknown.
    """
    path = folder / paths.index_path(file)
    rename_file(write_temporary_index(path, summary), path)
