"""The small files: gap records, and entries in quarantine.

A gap record is JSON. A quarantined entry is one line of JSON about it, and then its raw bytes.
"""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from busyapi.archive import names
from busyapi.archive.coverage import Range
from busyapi.archive.durable import make_folder, write_small
from busyapi.archive.identity import FORMAT, Identity
from busyapi.archive.names import File, Kind
from busyapi.archive.versions import require_known_format
from busyapi.errors import ArchiveDamaged


class Gap(NamedTuple):
    """Why some seqs were skipped, and when."""

    why: str
    when: str


class Quarantined(NamedTuple):
    """An entry that could not be rendered."""

    why: str
    when: str
    raw: bytes


def write_gap(folder: Path, identity: Identity, span: Range, why: str) -> File:
    """Put a gap record on disk."""
    said = _head(identity, span, why)
    return _write(folder, identity, Kind.GAP, span, json.dumps(said, indent=2).encode() + b"\n")


def write_quarantine(folder: Path, identity: Identity, span: Range, raw: bytes, why: str) -> File:
    """Put an entry into quarantine, on disk."""
    said = _head(identity, span, why)
    said |= {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    data = json.dumps(said).encode() + b"\n" + raw
    return _write(folder, identity, Kind.QUARANTINE, span, data)


def read_gap(folder: Path, file: File, identity: Identity) -> Gap:
    """Read a gap record.

    Raises:
        ArchiveDamaged: it does not say what its name says.
    """
    said = _checked((folder / file.path).read_bytes(), file, identity)
    return Gap(said["why"], said["when"])


def read_quarantine(folder: Path, file: File, identity: Identity) -> Quarantined:
    """Read an entry in quarantine.

    Raises:
        ArchiveDamaged: it does not say what its name says, or its checksum does not hold.
    """
    head, _, raw = (folder / file.path).read_bytes().partition(b"\n")
    said = _checked(head, file, identity)
    if (said.get("bytes"), said.get("sha256")) != (len(raw), hashlib.sha256(raw).hexdigest()):
        raise ArchiveDamaged(f"{file.path}: its SHA-256 does not hold")
    return Quarantined(said["why"], said["when"], raw)


def _head(identity: Identity, span: Range, why: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "partition": identity.partition,
        "partitions": identity.partitions,
        "from": span.first,
        "to": span.last,
        "why": why,
        "when": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


def _write(folder: Path, identity: Identity, kind: Kind, span: Range, data: bytes) -> File:
    file = names.file(kind, names.day_of(), identity.partition, *span)
    make_folder(folder / file.day)
    write_small(folder / file.path, data)
    return file


def _checked(raw: bytes, file: File, identity: Identity) -> dict[str, Any]:
    expected = _head(identity, Range(file.first, file.last), "")
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
