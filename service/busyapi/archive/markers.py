"""The small files: gap records, and entries in quarantine.

A gap record is JSON. A quarantined entry is one line of JSON about it, and then its raw bytes.
"""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from busyapi.archive import paths
from busyapi.archive.format_version import require_known_format
from busyapi.archive.fsync import make_folder, write_small_file
from busyapi.archive.identity import FORMAT_VERSION, Identity
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.ranges import SeqRange
from busyapi.errors import ArchiveDamaged


class GapRecord(NamedTuple):
    """Why some seqs were skipped, and when."""

    why: str
    when: str


class QuarantinedEntry(NamedTuple):
    """An entry that could not be rendered."""

    why: str
    when: str
    raw: bytes


def write_gap(folder: Path, identity: Identity, span: SeqRange, why: str) -> ArchiveFile:
    """Put a gap record on disk."""
    said = _make_header(identity, span, why)
    return _write_file(
        folder, identity, FileKind.GAP, span, json.dumps(said, indent=2).encode() + b"\n"
    )


def write_quarantine(
    folder: Path, identity: Identity, span: SeqRange, raw: bytes, why: str
) -> ArchiveFile:
    """Put an entry into quarantine, on disk."""
    said = _make_header(identity, span, why)
    said |= {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    data = json.dumps(said).encode() + b"\n" + raw
    return _write_file(folder, identity, FileKind.QUARANTINE, span, data)


def read_gap(folder: Path, file: ArchiveFile, identity: Identity) -> GapRecord:
    """Read a gap record.

    Raises:
        ArchiveDamaged: it does not say what its name says.
    """
    said = _parse_checked((folder / file.path).read_bytes(), file, identity)
    return GapRecord(said["why"], said["when"])


def read_quarantine(folder: Path, file: ArchiveFile, identity: Identity) -> QuarantinedEntry:
    """Read an entry in quarantine.

    Raises:
        ArchiveDamaged: it does not say what its name says, or its checksum does not hold.
    """
    head, _, raw = (folder / file.path).read_bytes().partition(b"\n")
    said = _parse_checked(head, file, identity)
    if (said.get("bytes"), said.get("sha256")) != (len(raw), hashlib.sha256(raw).hexdigest()):
        raise ArchiveDamaged(f"{file.path}: its SHA-256 does not hold")
    return QuarantinedEntry(said["why"], said["when"], raw)


def _make_header(identity: Identity, span: SeqRange, why: str) -> dict[str, Any]:
    return {
        "format": FORMAT_VERSION,
        "partition": identity.partition,
        "partitions": identity.partitions,
        "from": span.first,
        "to": span.last,
        "why": why,
        "when": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


def _write_file(
    folder: Path, identity: Identity, kind: FileKind, span: SeqRange, data: bytes
) -> ArchiveFile:
    file = paths.make_file(kind, paths.utc_day(), identity.partition, *span)
    make_folder(folder / file.day)
    write_small_file(folder / file.path, data)
    return file


def _parse_checked(raw: bytes, file: ArchiveFile, identity: Identity) -> dict[str, Any]:
    expected = _make_header(identity, SeqRange(file.first, file.last), "")
    try:
        said: dict[str, Any] = json.loads(raw)
        require_known_format(said, file.path)
        wrong = [name for name in expected if name not in {"why", "when"}]
        wrong = [name for name in wrong if said[name] != expected[name]]
        texts = isinstance(said["why"], str) and isinstance(said["when"], str)
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveDamaged(f"{file.path} cannot be read: {type(error).__name__}") from error
    if wrong or not texts:
        raise ArchiveDamaged(f"{file.path} does not say what its name says")
    return said
