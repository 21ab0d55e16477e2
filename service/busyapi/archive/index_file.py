"""The index of a finished segment of format 2: a file next to it, which can be rebuilt.

    _usages-p00-<first>-<last>.index      header | entry, entry, … | CRC-32 | section | section | …

It saves time and proves the segment's SHA-256. No usage depends on it: it counts only if the size
and the checksums of the first and the last frame that it states are those of the segment. Its name
begins with an underscore, so Spark, Hive and Trino skip it when they read a whole folder.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from busyapi.archive import paths
from busyapi.archive.format import SegmentIndex, SegmentSummary
from busyapi.archive.fsync import rename_file, sync_file, write_at
from busyapi.archive.paths import ArchiveFile
from busyapi.archive.patient_filter import PatientFilter
from busyapi.failpoints import failpoint
from busyapi.ids import Seq, make_usage_id

FORMAT = 2
_MAGIC = b"busyidx\x02"
_HEAD = struct.Struct("<8sIIQQQQQI32s8s")
_ENTRY_BYTES = 40
_CRC = struct.Struct("<I")
_SECTION = struct.Struct("<II")
"""Its kind, and the length of its content. After the content follows the CRC-32 of the segment's
SHA-256 and the section, so that the section of another segment does not count."""
_PATIENTS = 1
_MAX_BYTES = 1 << 26
"""Far more than any index has without its sections. Damage must not take memory."""


def encode_index(summary: SegmentSummary, patients: PatientFilter | None = None) -> bytes:
    """Encode an index."""
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
        summary.checksums,
    )
    body = head + summary.block_index.packed
    index = body + _CRC.pack(crc32(body))
    if patients is None:
        return index
    section = _SECTION.pack(_PATIENTS, len(patients.bits)) + patients.bits
    return index + section + _CRC.pack(crc32(summary.sha256 + section))


def decode_index(raw: bytes) -> SegmentSummary | None:
    """Decode an index; None if it is damaged, or of another version. Sections are skipped."""
    if len(raw) < _HEAD.size:
        return None
    magic, *numbers, blocks, sha256, checksums = _HEAD.unpack_from(raw)
    partition, stride, first, last, first_id, raw_bytes, size = numbers
    end = _HEAD.size + blocks * _ENTRY_BYTES
    if magic != _MAGIC or blocks == 0 or not _has_checksum(raw, 0, end):
        return None
    if first_id != make_usage_id(first, partition, stride):
        return None
    index = SegmentIndex(raw[_HEAD.size : end])
    count = last - first + 1
    return SegmentSummary(
        partition,
        stride,
        Seq(first),
        Seq(last),
        count,
        raw_bytes,
        index,
        size,
        sha256,
        FORMAT,
        checksums,
    )


def decode_patients(raw: bytes) -> PatientFilter | None:
    """Decode the filter in the sections of an index; None if there is no valid one."""
    for kind, content in _split_sections(raw):
        if kind == _PATIENTS:
            return PatientFilter(content) if content else None
    return None


def has_valid_sections(folder: Path, file: ArchiveFile) -> bool:
    """Return whether every section of a valid index has its checksum, and nothing follows them.

    Raises:
        OSError: the index cannot be read.
    """
    raw = (folder / paths.index_path(file)).read_bytes()
    sizes = (_SECTION.size + len(content) + _CRC.size for _, content in _split_sections(raw))
    return _size_without_sections(raw) + sum(sizes) == len(raw)


def _split_sections(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of each section, up to one that is damaged."""
    at, sha256 = _size_without_sections(raw), _HEAD.unpack_from(raw)[-2]
    while len(raw) - at >= _SECTION.size:
        kind, length = _SECTION.unpack_from(raw, at)
        end = at + _SECTION.size + length
        if not _has_checksum(raw, at, end, sha256):
            return
        yield kind, raw[at + _SECTION.size : end]
        at = end + _CRC.size


def _size_without_sections(head: bytes) -> int:
    blocks = _HEAD.unpack_from(head)[-3]
    return int(_HEAD.size + blocks * _ENTRY_BYTES + _CRC.size)


def _has_checksum(raw: bytes, start: int, end: int, prefix: bytes = b"") -> bool:
    """Return whether the CRC-32 of these bytes, after a prefix, follows them."""
    if len(raw) < end + _CRC.size:
        return False
    return bool(_CRC.unpack_from(raw, end)[0] == crc32(prefix + raw[start:end]))


def read_index(folder: Path, file: ArchiveFile) -> SegmentSummary | None:
    """Read the index of a segment; None if it is missing, unreadable or of another file."""
    try:
        with (folder / paths.index_path(file)).open("rb") as index:
            head = index.read(_HEAD.size)
            rest = _size_without_sections(head) - _HEAD.size if len(head) == _HEAD.size else 0
            summary = decode_index(head + index.read(min(rest, _MAX_BYTES)))
    except OSError:  # also one that the disk cannot read: the segment itself is what counts
        return None
    if summary is None or (summary.first, summary.last) != (file.first, file.last):
        return None
    return summary


def read_patients(folder: Path, file: ArchiveFile, sha256: bytes) -> PatientFilter | None:
    """Read the filter of the patients of the segment with this SHA-256; None if it has none.

    The index may have been replaced since its summary was read, by that of another segment.
    """
    try:
        raw = (folder / paths.index_path(file)).read_bytes()
    except OSError:
        return None
    stated = decode_index(raw)
    return decode_patients(raw) if stated and stated.sha256 == sha256 else None


def write_temporary_index(
    path: Path, summary: SegmentSummary, patients: PatientFilter | None = None
) -> Path:
    """Put an index on disk under a temporary name; return that name.

    Raises:
        OSError: there is no such file now.
        FsyncFailed: what the disk holds is unknown.
    """
    temporary = path.with_name(path.name + paths.TEMPORARY_SUFFIX)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    try:
        failpoint("archive-write-index")
        write_at(fd, encode_index(summary, patients), 0)
        sync_file(fd, path.name)
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full volume every block counts
        raise
    finally:
        os.close(fd)
    return temporary


def replace_index(
    folder: Path,
    file: ArchiveFile,
    summary: SegmentSummary,
    patients: PatientFilter | None = None,
) -> None:
    """Put an index of a finished segment on disk.

    Raises:
        OSError: the previous state is still there.
        FsyncFailed: what the disk holds is unknown.
    """
    path = folder / paths.index_path(file)
    rename_file(write_temporary_index(path, summary, patients), path)
