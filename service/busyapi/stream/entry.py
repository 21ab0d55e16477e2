r"""One stream entry: a batch of usages as one field, made by a committer and read by a flusher.

    1 <received at, ms since 1970> <CRC-32 of the lines, 8 hex digits>\n
    <usage>\n<usage>\n…<usage>

The entry's id `<last>-<n>` says which seqs the lines have. One entry a batch, because it costs
Redis a fraction of one entry a usage and turns the audit into interval arithmetic.

Unknown is not broken: a header that begins with another version, or another field than ours, was
written by another busyapi. Such an entry is never set aside.
"""

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import NamedTuple
from zlib import crc32

from busyapi.errors import UnknownVersion
from busyapi.ids import Seq
from busyapi.usage_json import MAX_RECEIVED_MS

VERSION = b"1"
FIELD = b"u"
_ANY_VERSION = re.compile(rb"[1-9][0-9]{0,5}")


class Entry(NamedTuple):
    """One batch as it stands in the stream."""

    first: Seq
    last: Seq
    value: bytes | bytearray
    is_known_format: bool = True
    """It has the one field that this version writes."""


class DecodedEntry(NamedTuple):
    """A batch's content."""

    received_ms: int
    lines: list[bytes]


class CheckedEntry(NamedTuple):
    """An entry whose header, checksum and count hold; its lines are not split yet."""

    first: Seq
    last: Seq
    received_ms: int
    value: bytes | bytearray
    lines_offset: int
    """Where the first line begins."""


class BadEntry(ValueError):
    """The entry cannot be read: its checksum, its header or its count is wrong."""


def encode_entry(lines: list[bytes], received_ms: int) -> bytes:
    """Render one batch. No line may hold a newline."""
    body = b"\n".join(lines)
    return b"1 %d %08x\n%b" % (received_ms, crc32(body), body)


def parse_entry(entry_id: bytes, fields: Sequence[bytes | bytearray]) -> Entry:
    """Read an entry's id; the value is left for `check_entry`."""
    last, count = map(int, entry_id.split(b"-"))
    # An id with no count was made by hand: `check_entry` refuses the one usage that it then claims.
    count = max(count, 1)
    known = not fields or (len(fields) == 2 and fields[0] == FIELD)  # noqa: PLR2004
    value = fields[1] if fields and known else b""
    return Entry(Seq(last - count + 1), Seq(last), value, known)


def check_entry(found: Entry) -> CheckedEntry:
    """Check one batch without splitting it: an entry may be large.

    Raises:
        BadEntry: it is not what `encode_entry` makes, or not as many usages as its id says.
        UnknownVersion: another version of busyapi made it.
    """
    end = found.value.find(b"\n")
    parts = bytes(found.value[: end if end >= 0 else None]).split(b" ")
    if not found.is_known_format:
        raise _unknown_version(found, "an unknown field")
    if parts[0] != VERSION and _ANY_VERSION.fullmatch(parts[0]):
        raise _unknown_version(found, f"version {parts[0].decode()}")
    if len(parts) != 3 or parts[0] != VERSION:  # noqa: PLR2004 - version, time, checksum
        raise BadEntry("header")
    try:
        received_ms, checksum = int(parts[1]), int(parts[2], 16)
    except ValueError:
        raise BadEntry("header") from None
    if not 0 <= received_ms <= MAX_RECEIVED_MS:
        raise BadEntry("time")
    start = end + 1 if end >= 0 else len(found.value)
    with memoryview(found.value) as whole, whole[start:] as body:
        if crc32(body) != checksum:
            raise BadEntry("checksum")
    if found.value.count(b"\n", start) + 1 != found.last - found.first + 1:
        raise BadEntry("count")
    return CheckedEntry(found.first, found.last, received_ms, found.value, start)


def _unknown_version(found: Entry, what: str) -> UnknownVersion:
    return UnknownVersion(
        f"the stream's entry of seqs {found.first} to {found.last} has {what}, and busyapi"
        f" {version('busyapi')} reads version {VERSION.decode()} only: start the busyapi that wrote"
        " it, or a later one. The entry stays in Redis until then"
    )


def decode_entry(found: Entry) -> DecodedEntry:
    """Check and split one batch; raises as `check_entry` does."""
    checked = check_entry(found)
    return DecodedEntry(
        checked.received_ms, bytes(checked.value[checked.lines_offset :]).split(b"\n")
    )


def split_lines(
    checked: CheckedEntry, after: Seq, max_bytes: int, max_lines: int
) -> Iterator[list[bytes]]:
    """Give the lines behind `after` in pieces of about these sizes, one after the other."""
    value, at = checked.value, checked.lines_offset
    if after >= checked.last:
        return
    for _ in range(after - checked.first + 1):
        at = value.index(b"\n", at) + 1
    left = checked.last - max(after, checked.first - 1)
    while left > 0:
        end = value.find(b"\n", at + max_bytes)
        lines = bytes(value[at : end if end >= 0 else len(value)]).split(b"\n")[:max_lines]
        yield lines
        left -= len(lines)
        at += sum(map(len, lines)) + len(lines)
