"""One archived line as a value. Only this module of the archive uses msgspec.

The usage is parsed into plain values, not into a typed struct: a struct skips members that it does
not know, and would not notice invalid UTF-8 or numbers beyond a double in them.
"""

from typing import Any

import msgspec

from busyapi.errors import ArchiveDamaged
from busyapi.json_float import parse_float
from busyapi.stamp import split_archived_stamp


class ArchivedUsage(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """The content of a line."""

    id: int
    received_at: str
    usage: dict[str, Any]
    writer: str | None = None
    """The digest of the credential that posted the usage; None if the usage has no stamp."""
    tenant: str | None = None


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


def extract_usage(line: bytes) -> bytes:
    """Return the JSON of a valid line's usage, exactly as archived."""
    return split_archived_stamp(line).usage.partition(b',"usage":')[2][:-1]
