"""The stamp of a usage: which credential posted it, and for which tenant.

    {"patientId":"100",…},"writer":"8nC3hQ2vXr0aLw_K","tenant":"clinic-7"
    └───── the usage ────┘└──────────────── its stamp ────────────────┘

The stream and the archive keep a stamp directly behind its usage, as the members that follow
`usage` in an archived line. So a flusher archives a stamped usage without parsing it. A usage
without a stamp ends with its own brace, and a stamped one with the quote of the stamp's last
member.
"""

import json
import re
from typing import NamedTuple

WRITER_CHARACTERS = 16
MAX_TENANT_CHARACTERS = 128
_START = b',"writer":"'
_PATTERN = re.compile(rb',"writer":"([\w-]{16})"(?:,"tenant":("(?:[^"\\]|\\.)+"))?')
_ENDS = re.compile(rb'},"writer":"[\w-]{16}"(?:,"tenant":"(?:[^"\\]++|\\.)++")?}\n')
"""The end of a stamped line: `_PATTERN` without groups and steps back, in half the time."""


class Stamp(NamedTuple):
    """Who posted a usage."""

    writer: str
    """The salted digest of the credential."""
    tenant: str = ""
    """The credential's tenant, "" if it has none."""


class StampedUsage(NamedTuple):
    """A usage, and its stamp if it has one."""

    usage: bytes
    stamp: Stamp | None


def is_valid_tenant(tenant: str) -> bool:
    """Return whether a stamp can hold a tenant: not every JSON string is text in UTF-8."""
    try:
        tenant.encode()
    except UnicodeEncodeError:
        return False
    return len(tenant) <= MAX_TENANT_CHARACTERS


def encode_stamp(stamp: Stamp) -> bytes:
    """Return the bytes to put behind a usage.

    Raises:
        ValueError: the tenant is not valid.
    """
    if not is_valid_tenant(stamp.tenant):
        raise ValueError(f"a tenant is text of at most {MAX_TENANT_CHARACTERS} characters")
    # json.dumps escapes all but ASCII, so that no tenant contains a newline or a bare quote.
    tenant = f',"tenant":{json.dumps(stamp.tenant)}' if stamp.tenant else ""
    return b'%b%b"%b' % (_START, stamp.writer.encode(), tenant.encode())


def split_stamp(line: bytes) -> StampedUsage:
    """Split a usage from its stamp.

    Raises:
        ValueError: `encode_stamp` cannot have written what follows the usage.
    """
    if line.endswith(b"}"):
        return StampedUsage(line, None)
    # The last occurrence is the stamp's: within its tenant every quote is escaped.
    start = max(0, line.rfind(b"}" + _START)) + 1
    match = _PATTERN.fullmatch(line, start)
    if match is None:
        raise ValueError("the usage has an invalid stamp")
    writer, tenant = match.groups()
    return StampedUsage(line[:start], Stamp(writer.decode(), json.loads(tenant or '""')))


def split_archived_stamp(line: bytes) -> StampedUsage:
    """Split an archived line into the line without stamp and the stamp; raise as `split_stamp`."""
    line, stamp = split_stamp(line.removesuffix(b"}"))
    return StampedUsage(line + b"}", stamp)


def count_stamped_lines(lines: bytes) -> int:
    """Return how many archived lines have a stamp that `split_archived_stamp` finds valid."""
    return len(_ENDS.findall(lines))
