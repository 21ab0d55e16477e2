r"""The stream entry: a batch of usages in one field, which a committer writes and a flusher reads.

    1 <received at, ms since 1970> <CRC-32 of the lines, 8 hex digits>\n
    <usage>\n<usage>\n…<usage>

Version 2 is for batches with stamped usages (see `stamp`): a line may be a usage and its stamp, and
the checksum covers the header before it too. A batch without stamps is written as version 1, which
every release reads.

    2 <received at, ms since 1970> <CRC-32 of `2 <received at>` and the lines>\n
    <usage><stamp>\n<usage>\n…<usage><stamp>

The entry's id `<last>-<n>` gives the seqs of its lines. A batch is one entry, because that costs
Redis a fraction of one entry per usage and turns the audit into interval arithmetic.

An unknown format is not damage: another busyapi wrote an entry whose header begins with another
version, or whose field has another name. Such an entry is never quarantined.
"""

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import NamedTuple
from zlib import crc32

from busyapi.errors import UnknownVersion
from busyapi.ids import Seq
from busyapi.usage_json import MAX_RECEIVED_MS

VERSION, STAMPED_VERSION = b"1", b"2"
READABLE_VERSIONS = (VERSION, STAMPED_VERSION)
MAX_VERSION = int(STAMPED_VERSION)
"""The highest version that this release reads. Committers find it in the partition's record."""
FIELD = b"u"
_ANY_VERSION = re.compile(rb"[1-9][0-9]{0,5}")


class Entry(NamedTuple):
    """A batch as the stream has it."""

    first: Seq
    last: Seq
    value: bytes | bytearray
    is_known_format: bool = True
    """The entry has exactly the field that this version writes."""


class DecodedEntry(NamedTuple):
    """A batch's content: in each line a usage, and its stamp if it has one."""

    received_ms: int
    lines: list[bytes]


class CheckedEntry(NamedTuple):
    """An entry with a valid header, checksum and count; its lines are not split yet."""

    first: Seq
    last: Seq
    received_ms: int
    value: bytes | bytearray
    lines_offset: int
    """Where the first line begins."""


class BadEntry(ValueError):
    """The entry is damaged: its header, time, checksum or count is wrong."""


def encode_entry(lines: list[bytes], received_ms: int) -> bytes:
    """Return the value of one batch's entry. No line may contain a newline."""
    body = b"\n".join(lines)
    return b"1 %d %08x\n%b" % (received_ms, crc32(body), body)


def encode_stamped_entry(lines: list[bytes], received_ms: int) -> bytes:
    """Return the value of an entry in which at least one usage has a stamp."""
    body, head = b"\n".join(lines), b"2 %d" % received_ms
    return b"%b %08x\n%b" % (head, crc32(body, crc32(head)), body)


def parse_entry(entry_id: bytes, fields: Sequence[bytes | bytearray]) -> Entry:
    """Parse an entry's id, and leave the value to `check_entry`."""
    last, count = map(int, entry_id.split(b"-"))
    # Only an id written by hand has no count. It then counts as one usage, which `check_entry`
    # refuses.
    count = max(count, 1)
    is_known = not fields or (len(fields) == 2 and fields[0] == FIELD)  # noqa: PLR2004
    value = fields[1] if fields and is_known else b""
    return Entry(Seq(last - count + 1), Seq(last), value, is_known)


def parse_read_entry(
    entry_id: bytes, fields: int, name: bytes, length: int, value: bytes | bytearray
) -> Entry:
    """Parse what `read_entries.lua` returns for an entry, with its whole value."""
    del length
    # Fields after the first are not read: they only show that another version wrote the entry.
    return parse_entry(entry_id, [name, value][:fields] + [b""] * (fields - 2))


def check_entry(entry: Entry) -> CheckedEntry:
    """Check an entry without splitting its lines, because it may be large.

    Raises:
        BadEntry: no committer can have written the value, or the id's count is wrong.
        UnknownVersion: another version of busyapi wrote the entry.
    """
    end = entry.value.find(b"\n")
    parts = bytes(entry.value[: end if end >= 0 else None]).split(b" ")
    if not entry.is_known_format:
        raise _unknown_version(entry, "an unknown field")
    is_readable = parts[0] in READABLE_VERSIONS
    if not is_readable and _ANY_VERSION.fullmatch(parts[0]):
        raise _unknown_version(entry, f"version {parts[0].decode()}")
    if len(parts) != 3 or not is_readable:  # noqa: PLR2004 - version, time, checksum
        raise BadEntry("header")
    try:
        received_ms = int(parts[1])
    except ValueError:
        raise BadEntry("header") from None
    if not 0 <= received_ms <= MAX_RECEIVED_MS:
        raise BadEntry("time")
    start = end + 1 if end >= 0 else len(entry.value)
    covered_head = b" ".join(parts[:2]) if parts[0] == STAMPED_VERSION else b""
    with memoryview(entry.value) as value, value[start:] as body:
        # Compared as it was written: cut to "0", it would be the checksum of an empty line.
        if parts[2] != b"%08x" % crc32(body, crc32(covered_head)):
            raise BadEntry("checksum")
    if entry.value.count(b"\n", start) + 1 != entry.last - entry.first + 1:
        raise BadEntry("count")
    return CheckedEntry(entry.first, entry.last, received_ms, entry.value, start)


def _unknown_version(entry: Entry, difference: str) -> UnknownVersion:
    return UnknownVersion(
        f"the stream's entry of seqs {entry.first} to {entry.last} has {difference}, and busyapi"
        f" {version('busyapi')} reads versions {b' and '.join(READABLE_VERSIONS).decode()} only:"
        " start the busyapi that wrote it, or a later one. The entry stays in Redis until then"
    )


def decode_entry(entry: Entry) -> DecodedEntry:
    """Check an entry and split its lines; raises as `check_entry` does."""
    checked = check_entry(entry)
    return DecodedEntry(
        checked.received_ms, bytes(checked.value[checked.lines_offset :]).split(b"\n")
    )


def split_lines(
    checked: CheckedEntry, after: Seq, max_bytes: int, max_lines: int
) -> Iterator[list[bytes]]:
    """Yield the lines after a seq in consecutive chunks of about these sizes."""
    value, offset = checked.value, checked.lines_offset
    if after >= checked.last:
        return
    for _ in range(after - checked.first + 1):
        offset = value.index(b"\n", offset) + 1
    remaining = checked.last - max(after, checked.first - 1)
    while remaining > 0:
        end = value.find(b"\n", offset + max_bytes)
        lines = bytes(value[offset : end if end >= 0 else len(value)]).split(b"\n")[:max_lines]
        yield lines
        remaining -= len(lines)
        offset += sum(map(len, lines)) + len(lines)
