"""Archived lines as values. Only this module of the archive uses msgspec.

`parse_line` parses a usage into plain values, not into a typed struct: a struct skips members that
it does not know, and would not notice invalid UTF-8 or numbers beyond a double in them. `read_rows`
skips them for a fifth of the cost. It is for lines whose checksums match. `read_heads` checks them
for a third of the cost, but not whether their numbers are doubles.
"""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from busyapi.errors import ArchiveDamaged
from busyapi.json_float import parse_float
from busyapi.stamp import count_stamped_lines, split_archived_stamp


class NamedMembers(msgspec.Struct, gc=False, rename="camel"):
    """The members of a usage that the contract names. Each may be any value, or be missing."""

    patient_id: Any = None
    timestamp: Any = None
    medication: Any = None


class _AnyUsage(msgspec.Struct, gc=False):
    """Any JSON object: the parser checks it, and keeps nothing."""


class _StampedUsage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The end of a line, as a line of its own."""

    usage: _AnyUsage
    writer: str | None = None
    tenant: str | None = None


Usage = TypeVar("Usage")


class _Line(msgspec.Struct, Generic[Usage], gc=False, forbid_unknown_fields=True, rename="camel"):
    """The content of a line, with what its reader needs of the usage."""

    id: int
    received_at: str
    usage: Usage
    writer: str | None = None
    """The digest of the credential that posted the usage; None if the usage has no stamp."""
    tenant: str | None = None


ArchivedUsage = _Line[dict[str, Any]]
UsageRow = _Line[NamedMembers]
LineHead = _Line[_AnyUsage]


class _RawMembers(msgspec.Struct, gc=False):
    usage: dict[str, msgspec.Raw]


_head_decoder = msgspec.json.Decoder(LineHead)
_object_decoder = msgspec.json.Decoder(_AnyUsage)
_stamped_decoder = msgspec.json.Decoder(_StampedUsage)
_row_decoder = msgspec.json.Decoder(UsageRow)
_raw_decoder = msgspec.json.Decoder(_RawMembers)
_encoder = msgspec.json.Encoder()

_decoder = msgspec.json.Decoder(ArchivedUsage, float_hook=parse_float)


def parse_line(line: bytes) -> ArchivedUsage:
    """Parse a line, and check the form of its stamp.

    Raises:
        ArchiveDamaged: it is not a line of the archive. The message never contains the line.
    """
    try:
        row = _decoder.decode(line)
        if not line.endswith(b"}}"):
            split_archived_stamp(line)
    except (ValueError, RecursionError):
        reason = "is not a line of the archive"
    else:
        return row
    # Raised outside of the handler: the parser's error may contain the payload, and must not become
    # the context of this one.
    raise ArchiveDamaged(reason)


def read_rows(lines: bytes) -> list[UsageRow]:
    """Parse lines, each with its newline.

    Raises:
        ArchiveDamaged: one is not a line of the archive. The message never contains it.
    """
    try:
        lines.decode()
        return _row_decoder.decode_lines(lines)
    except (ValueError, RecursionError):
        reason = "a line is not a line of the archive"
    raise ArchiveDamaged(reason)


def read_heads(lines: bytes) -> list[LineHead] | None:
    """Parse lines, each with its newline, and check the form of their stamps.

    Return None if one is not a line of the archive. But if a line has two objects, the end of one
    may be in the line after it.
    """
    try:
        lines.decode()
        heads = _head_decoder.decode_lines(lines)
    except (ValueError, RecursionError):
        return None
    unstamped = lines.count(b"}}\n")
    if unstamped < len(heads) and unstamped + count_stamped_lines(lines) != len(heads):
        return None
    return heads


def count_objects(lines: bytes | memoryview) -> int:
    """Return how many objects lines have; 0 if one is not valid. The lines are valid UTF-8."""
    return _count(_object_decoder, lines)


def count_stamped_objects(lines: bytes | memoryview) -> int:
    """Return how many objects have a usage and nothing else but a stamp; as `count_objects`."""
    return _count(_stamped_decoder, lines)


def _count(decoder: msgspec.json.Decoder[Any], lines: bytes | memoryview) -> int:
    try:
        return len(decoder.decode_lines(lines))
    except (ValueError, RecursionError):
        return 0


def read_members(line: bytes | str) -> dict[str, bytes]:
    """Return the JSON of each member of a valid line's usage, exactly as archived."""
    return {name: bytes(raw) for name, raw in _raw_decoder.decode(line).usage.items()}


def render_members(members: dict[str, bytes]) -> str:
    """Return members as the text of a JSON object."""
    return _encoder.encode({name: msgspec.Raw(raw) for name, raw in members.items()}).decode()


def read_value(raw: bytes | str) -> Any:
    """Parse the JSON of a member."""
    return msgspec.json.decode(raw)


def render_value(value: Any) -> str:
    """Return a value as JSON."""
    return _encoder.encode(value).decode()


def render_lines_of_values(
    names: Sequence[str], columns: Sequence[Sequence[Any]], *, raw: str
) -> bytes:
    """Return a JSON object a line, from columns of values. The column `raw` holds JSON."""
    at = names.index(raw)
    parsed = [value if value is None else msgspec.Raw(value.encode()) for value in columns[at]]
    rows = zip(*columns[:at], parsed, *columns[at + 1 :], strict=True)
    return _encoder.encode_lines([dict(zip(names, row, strict=True)) for row in rows])
