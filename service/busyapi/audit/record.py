"""The records of the audit trail, and the hash that chains them: FORMAT.md.

A record says who asked for what, and how it was answered. It holds no patient id and no usage.
"""

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

FORMAT_VERSION = 1
ACTIONS = frozenset({"read", "export", "erase", "refused"})
"""The actions of clients and operators."""
TRAIL_ACTIONS = frozenset({"begin", "resume", "expire"})
"""What the trail records of itself."""
HEAD_MISSING = "the head is missing"
"""Why a file begins, if only the head could have shown that the end of the trail was cut off."""
GENESIS_HASH = "0" * 64
"""The hash before the first record of a trail."""
MAX_LINE_BYTES = 4096
"""The longest line. A longer one is damage, and is not read into memory as a whole."""
MAX_ENTRY_BYTES = MAX_LINE_BYTES - 512
"""An entry becomes longer in the trail: by its number, its hash and its newline."""
MAX_TEXT = 512
MAX_COUNT = 1 << 53
FIRST_YEAR = 1970

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_HASH_MEMBER = b',"hash":"'
_SEAL_BYTES = len(_HASH_MEMBER) + 64 + len(b'"}')


class InvalidEntry(ValueError):
    """A line is not an entry of the audit trail."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One event, as its sender knows it. The trail adds number and hash."""

    time: str
    """RFC 3339 in UTC with milliseconds."""
    action: str
    resource: str
    """`usage/<id>`, `usages` for a post, or `query?…` for an export or a list."""
    name: str = ""
    """The name of the credential; "" without one. For a command, `os:` and the user."""
    address: str = ""
    """The client's address, as the API saw it; for a command, the host."""
    status: int = 0
    """The HTTP status of the answer; 0 for a command."""
    request_id: str = ""
    count: int = 1
    """How many equal events this entry stands for: refusals are sampled."""
    dropped: int = 0
    """How many other events the sender could not record before this one."""
    last: str = ""
    """`usage/<highest id>`, if `count` refusals are about several; `resource` has the lowest."""


def format_time(seconds: float) -> str:
    """Return the form of a time that records have."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def parse_time(text: str) -> float:
    """Return a record's time in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def encode_entry(entry: AuditEntry) -> bytes:
    """Return an entry as JSON in ASCII, so that it fits into a line and into a header."""
    return json.dumps(_to_members(entry), separators=(",", ":")).encode()


def decode_entry(line: bytes) -> AuditEntry:
    """Parse and check what `encode_entry` returns.

    Raises:
        InvalidEntry: it is not an entry.
    """
    if len(line) > MAX_ENTRY_BYTES:
        raise InvalidEntry("too long")
    try:
        members = json.loads(line)
        entry = AuditEntry(**{_FIELDS.get(name, name): value for name, value in members.items()})
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidEntry("not the members of an entry") from None
    texts = (entry.resource, entry.name, entry.address, entry.request_id, entry.last)
    if not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in texts):
        raise InvalidEntry("a text is too long or of a wrong type")
    numbers = (entry.status, entry.count, entry.dropped)
    if not all(type(number) is int and 0 <= number <= MAX_COUNT for number in numbers):
        raise InvalidEntry("a number is out of range or of a wrong type")
    if entry.action not in ACTIONS or not _is_time(entry.time):
        raise InvalidEntry("unknown action, or malformed time")
    return entry


def _is_time(text: Any) -> bool:
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        return False
    try:
        # Retention subtracts days, and the calendar of `datetime` begins with the year 1.
        return datetime.fromisoformat(text).year >= FIRST_YEAR
    except ValueError:
        return False


_NAMES = {"address": "from", "request_id": "request"}
_FIELDS = {name: field for field, name in _NAMES.items()}


def _to_members(entry: AuditEntry) -> dict[str, Any]:
    members = {_NAMES.get(name, name): value for name, value in asdict(entry).items()}
    if entry.count == 1:
        del members["count"]
    if not entry.dropped:
        del members["dropped"]
    if not entry.last:
        del members["last"]
    return members


def seal_entry(seq: int, entry: AuditEntry, previous: str) -> tuple[bytes, str]:
    """Return an entry as a line of the trail, and its hash."""
    return seal_members({"seq": seq, **_to_members(entry)}, previous)


def seal_members(members: dict[str, Any], previous: str) -> tuple[bytes, str]:
    """Return members as a line that continues the chain after `previous`, and its hash."""
    body = json.dumps(members, separators=(",", ":")).encode()
    digest = _hash_body(previous, body)
    return body[:-1] + _HASH_MEMBER + digest.encode() + b'"}\n', digest


@dataclass(frozen=True, slots=True)
class SealedRecord:
    """One line of the trail."""

    members: dict[str, Any]
    hash: str
    """The hash that the line states."""
    body: bytes
    """What the hash covers, besides the hash before."""
    line: bytes
    """The whole line, with its newline."""

    @property
    def seq(self) -> int:
        """Its number, from 1."""
        return int(self.members["seq"])

    @property
    def action(self) -> str:
        """The action, such as `read`."""
        return str(self.members["action"])

    def follows(self, previous: str) -> bool:
        """Return whether its hash is that of its content after the record with this hash."""
        return _hash_body(previous, self.body) == self.hash


def parse_line(line: bytes) -> SealedRecord | None:
    """Parse a complete line, with or without newline; None if it is not a record."""
    text = line.removesuffix(b"\n")
    body, seal = text[:-_SEAL_BYTES] + b"}", text[-_SEAL_BYTES:]
    if not seal.startswith(_HASH_MEMBER) or not seal.endswith(b'"}'):
        return None
    try:
        members = json.loads(body)
        digest = seal[len(_HASH_MEMBER) : -2].decode("ascii")
        if type(members["seq"]) is not int or not isinstance(members["action"], str):
            return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return SealedRecord(members, digest, body, line)


def _hash_body(previous: str, body: bytes) -> str:
    return sha256(previous.encode() + body).hexdigest()
