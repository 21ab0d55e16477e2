"""Gap records and quarantine files.

A gap record is JSON. A quarantine file is one line of JSON, followed by the raw bytes of the entry.
"""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from busyapi.archive import paths
from busyapi.archive.format_version import require_known_format
from busyapi.archive.fsync import make_folder, write_small_file
from busyapi.archive.identity import Identity
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.ranges import SeqRange
from busyapi.errors import ArchiveDamaged

MARKER_FORMAT = 1
"""The format of gap records and quarantine files, which is the same in archives of format 2."""


class GapRecord(NamedTuple):
    """The reason why some seqs were skipped, and when."""

    why: str
    when: str


class QuarantinedEntry(NamedTuple):
    """An entry of the stream that could not be rendered."""

    why: str
    when: str
    raw: bytes


def write_gap(folder: Path, identity: Identity, span: SeqRange, why: str) -> ArchiveFile:
    """Put a gap record on disk."""
    data = json.dumps(_make_header(identity, span, why), indent=2).encode() + b"\n"
    return _write_file(folder, identity, FileKind.GAP, span, data)


def write_quarantine(
    folder: Path, identity: Identity, span: SeqRange, raw: bytes, why: str
) -> ArchiveFile:
    """Put a quarantine file on disk."""
    header = _make_header(identity, span, why)
    header |= {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    data = json.dumps(header).encode() + b"\n" + raw
    return _write_file(folder, identity, FileKind.QUARANTINE, span, data)


def read_gap(folder: Path, file: ArchiveFile, identity: Identity) -> GapRecord:
    """Read a gap record.

    Raises:
        ArchiveDamaged: its content does not match its name.
    """
    record = _parse_checked((folder / file.path).read_bytes(), file, identity)
    return GapRecord(record["why"], record["when"])


def read_quarantine(folder: Path, file: ArchiveFile, identity: Identity) -> QuarantinedEntry:
    """Read a quarantine file.

    Raises:
        ArchiveDamaged: its content does not match its name or its checksum.
    """
    line, _, raw = (folder / file.path).read_bytes().partition(b"\n")
    header = _parse_checked(line, file, identity)
    if (header.get("bytes"), header.get("sha256")) != (len(raw), hashlib.sha256(raw).hexdigest()):
        raise ArchiveDamaged(f"{file.path}: its SHA-256 does not match")
    return QuarantinedEntry(header["why"], header["when"], raw)


def _make_header(identity: Identity, span: SeqRange, why: str) -> dict[str, Any]:
    return {
        "format": MARKER_FORMAT,
        "partition": identity.partition,
        "partitions": identity.strides.at(span.first),
        "from": span.first,
        "to": span.last,
        "why": why,
        "when": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


def _write_file(
    folder: Path, identity: Identity, kind: FileKind, span: SeqRange, data: bytes
) -> ArchiveFile:
    file = paths.name_file(kind, paths.utc_day(), identity.partition, *span)
    make_folder(folder / file.day)
    write_small_file(folder / file.path, data)
    return file


def _is_stride(number: int, file: ArchiveFile, identity: Identity) -> bool:
    # On a new volume an operator may record a gap before the flusher knows the strides.
    may_be_guess = file.first == 1 and number > 0
    return may_be_guess or number in {step.stride for step in identity.strides.steps}


def _parse_checked(raw: bytes, file: ArchiveFile, identity: Identity) -> dict[str, Any]:
    expected = _make_header(identity, SeqRange(file.first, file.last), "")
    try:
        header: dict[str, Any] = json.loads(raw)
        require_known_format(header, file.path)
        names = [name for name in expected if name not in {"partitions", "why", "when"}]
        is_valid = all(header[name] == expected[name] for name in names)
        is_valid = is_valid and _is_stride(header["partitions"], file, identity)
        has_texts = isinstance(header["why"], str) and isinstance(header["when"], str)
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveDamaged(f"{file.path} cannot be read: {type(error).__name__}") from error
    if not is_valid or not has_texts:
        raise ArchiveDamaged(f"{file.path}: its content does not match its name")
    return header
