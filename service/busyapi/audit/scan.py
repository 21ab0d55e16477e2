"""Reading the records of one file in order."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from busyapi.audit.record import MAX_LINE_BYTES, SealedRecord, parse_line


class ScannedLine(NamedTuple):
    """One line of a file."""

    record: SealedRecord | None
    """None: the line is not a record."""
    start: int
    end: int
    """The offset behind the line."""
    is_complete: bool
    """Whether it ends with a newline."""


def scan_lines(path: Path, stop: int | None = None) -> Iterator[ScannedLine]:
    """Yield the lines of a file up to an offset; an overlong one comes in parts."""
    with path.open("rb") as file:
        at = 0
        while stop is None or at < stop:
            line = file.readline(MAX_LINE_BYTES if stop is None else min(MAX_LINE_BYTES, stop - at))
            if not line:
                return
            is_complete = line.endswith(b"\n")
            record = parse_line(line) if is_complete else None
            yield ScannedLine(record, at, at + len(line), is_complete)
            at += len(line)


def read_begin(path: Path) -> SealedRecord | None:
    """Return the first record of a file if it is a valid begin of a file, else None."""
    first = next(scan_lines(path), None)
    record = first.record if first else None
    if record is None or record.action != "begin":
        return None
    return record if record.follows(previous_hash(record)) else None


def previous_hash(begin: SealedRecord) -> str:
    """Return the hash of the record before the begin of a file, as the begin states it."""
    return str(begin.members.get("previous", ""))
