"""One archived line as a value. Only this module of the archive uses msgspec.

The usage is parsed into plain values, not into a typed struct: a struct skips members that it does
not know, and would not notice invalid UTF-8 or numbers beyond a double in them.
"""

from typing import Any

import msgspec

from busyapi.errors import ArchiveDamaged


class ArchivedUsage(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """The content of a line."""

    id: int
    received_at: str
    usage: dict[str, Any]


_decoder = msgspec.json.Decoder(ArchivedUsage)


def parse_line(line: bytes) -> ArchivedUsage:
    """Parse a line.

    Raises:
        ArchiveDamaged: it is not a line of the archive. The message never contains the line.
    """
    try:
        return _decoder.decode(line)
    except (ValueError, RecursionError):
        reason = "is not a line of the archive"
    # Raised outside of the handler: the parser's error may contain the payload, and must not become
    # the context of this one.
    raise ArchiveDamaged(reason)


def extract_usage(line: bytes) -> bytes:
    """Return the JSON of a line's usage, its last member, exactly as archived."""
    return line.partition(b',"usage":')[2][:-1]
