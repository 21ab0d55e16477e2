r"""One stream entry: a batch of usages as one field, made by a lane and read by a flusher.

    1 <received at, ms since 1970> <CRC-32 of the lines, 8 hex digits>\n
    <usage>\n<usage>\n…<usage>

The entry's id `<last>-<n>` says which seqs the lines have. One entry a batch, because it costs
Redis a fraction of one entry a usage and turns the audit into interval arithmetic.
"""

from typing import NamedTuple
from zlib import crc32

from busyapi.ids import Seq

VERSION = b"1"
LATEST_MS = 253_402_300_800_000
"""The year 10000, which RFC 3339 cannot write."""


class Entry(NamedTuple):
    """One batch as it stands in the stream."""

    first: Seq
    last: Seq
    value: bytes


class Usages(NamedTuple):
    """A batch's content."""

    received_ms: int
    lines: list[bytes]


class BadEntry(ValueError):
    """The entry cannot be read: its checksum, its header or its count is wrong."""


def encode(lines: list[bytes], received_ms: int) -> bytes:
    """Render one batch. No line may hold a newline."""
    body = b"\n".join(lines)
    return b"1 %d %08x\n%b" % (received_ms, crc32(body), body)


def entry(entry_id: bytes, fields: list[bytes]) -> Entry:
    """Read an entry's id; the value is left for `decode`."""
    last, count = map(int, entry_id.split(b"-"))
    # An id with no count was made by hand: `decode` refuses the one usage that it then claims.
    count = max(count, 1)
    return Entry(Seq(last - count + 1), Seq(last), fields[1] if len(fields) == 2 else b"")  # noqa: PLR2004


def decode(found: Entry) -> Usages:
    """Check and split one batch.

    Raises:
        BadEntry: it is not what `encode` makes, or not as many usages as its id says.
    """
    head, _, body = found.value.partition(b"\n")
    parts = head.split(b" ")
    if len(parts) != 3 or parts[0] != VERSION:  # noqa: PLR2004 - version, time, checksum
        raise BadEntry("header")
    try:
        received_ms, checksum = int(parts[1]), int(parts[2], 16)
    except ValueError:
        raise BadEntry("header") from None
    if not 0 <= received_ms < LATEST_MS:
        raise BadEntry("time")
    if crc32(body) != checksum:
        raise BadEntry("checksum")
    lines = body.split(b"\n")
    if len(lines) != found.last - found.first + 1:
        raise BadEntry("count")
    return Usages(received_ms, lines)
