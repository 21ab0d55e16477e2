"""One archived line as a value: the door to msgspec here.

The usage is parsed into plain values, never into a typed struct: a struct skips the members it
does not know, and with them invalid UTF-8 and numbers beyond a double.
"""

from typing import Any

import msgspec

from busyapi.errors import ArchiveDamaged


class ArchivedUsage(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """What a line says."""

    id: int
    received_at: str
    usage: dict[str, Any]


_decoder = msgspec.json.Decoder(ArchivedUsage)


def parse_line(line: bytes) -> ArchivedUsage:
    """Read a line.

    Raises:
        ArchiveDamaged: it is not a line of the archive. What it holds is not in the message.
    """
    try:
        return _decoder.decode(line)
    except (ValueError, RecursionError):
        reason = "is not a line of the archive"
    # Raised here, so that the parser's error, which may hold the payload, is not its context.
    raise ArchiveDamaged(reason)


def extract_usage(line: bytes) -> bytes:
    """Return the usage of a line as its JSON stands there: it is the last member."""
    return line.partition(b',"usage":')[2][:-1]
