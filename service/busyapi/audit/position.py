"""Where a trail ends, found from its files and its head. Nothing is changed."""

from pathlib import Path
from typing import NamedTuple

from busyapi.audit.files import AuditFile, list_files
from busyapi.audit.head import Head, read_head
from busyapi.audit.record import GENESIS_HASH, HEAD_MISSING, TRAIL_ACTIONS, parse_time
from busyapi.audit.scan import previous_hash, read_begin, scan_lines
from busyapi.failpoints import failpoint


class Position(NamedTuple):
    """The end of a trail: the next record follows it."""

    seq: int = 0
    hash: str = GENESIS_HASH
    trail: str = ""
    """The trail's id; "" before its first record."""
    file: AuditFile | None = None
    """The file with the last record."""
    size: int = 0
    """The bytes of this file up to the last record."""
    seconds: float | None = None
    """The time of the last entry, in seconds since 1970: an API pod's clock."""


class TrailEnd(NamedTuple):
    """The end of a trail, and why a new file must begin, if it must."""

    position: Position
    why_new_file: str
    missing: Head | None = None
    """The record that the head names, if the files end before it."""


def find_end(folder: Path, partition: int, known: Head | None = None) -> TrailEnd:
    """Find the end of a trail. `known`: a record that the caller has put there itself.

    Only the newest file with a record is read. A file whose first record is not valid was begun by
    a process that died or whose disk failed, and nothing in it was confirmed.
    """
    head = read_head(folder)
    failpoint("audit-find-end")
    position, has_rest = Position(), False
    files = list_files(folder, partition)
    for file in reversed(files):
        if position_of := _scan_file(file):
            position, has_rest = position_of
            has_rest = has_rest or file is not files[-1]
            break
    newest = max(filter(None, (head, known)), default=None)
    if newest and newest.seq > position.seq:
        return TrailEnd(position, "records are missing", newest)
    if position.file is None:
        return TrailEnd(position, "new trail")
    if head is None:
        return TrailEnd(position, HEAD_MISSING)
    return TrailEnd(position, "unconfirmed bytes" if has_rest else "")


def _scan_file(file: AuditFile) -> tuple[Position, bool] | None:
    """Return the position behind the last valid record, and whether bytes follow it."""
    begin = read_begin(file.path)
    if begin is None:
        return None
    previous, end = previous_hash(begin), 0
    position: Position | None = None
    seconds: float | None = None
    for line in scan_lines(file.path):
        end = line.end
        record = line.record
        if record is None:
            continue
        if record.follows(previous) or (position and record.seq > position.seq):
            if record.action not in TRAIL_ACTIONS:
                seconds = _seconds_of(record.members.get("time"))
            # A record that was changed later does not end the trail: `audit verify` reports it.
            position = Position(
                record.seq,
                record.hash,
                str(begin.members.get("trail", "")),
                file,
                line.end,
                seconds,
            )
            previous = record.hash
    return (position, end > position.size) if position else None


def _seconds_of(text: object) -> float | None:
    try:
        return parse_time(str(text))
    except ValueError:
        return None
