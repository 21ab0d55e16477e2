"""The id of a request, for its client and for the logs: X-Request-ID.

A client's own id is accepted if it is valid. It may be logged, so it must be short and plain.
"""

import re
import secrets
from itertools import count

HEADER = "x-request-id"
VALID_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_HEADER_LINE = b"\r\nx-request-id:"
_PROCESS_ID = secrets.token_hex(6).encode()
_request_numbers = count(1)


def generate() -> bytes:
    """Return a new id: random per process and then counted, which costs less than random ids."""
    return b"%b-%x" % (_PROCESS_ID, next(_request_numbers))


def accept_or_generate(sent: str | None) -> str:
    """Return the id that a client sent if it is valid, or a new one."""
    return sent if sent and VALID_ID.fullmatch(sent) else generate().decode()


def extract(head: bytes) -> tuple[bytes, bytes | None]:
    """Remove a valid id from a head, so that heads that differ only in it become equal.

    Return the head and the id. An invalid id stays in the head, and so does a second one.
    """
    at = head.lower().find(_HEADER_LINE)
    if at < 0:
        return head, None
    end = head.find(b"\r\n", at + 2)
    end = len(head) if end < 0 else end
    # Strip no other whitespace: to some proxies a line feed here would end the line.
    sent = head[at + len(_HEADER_LINE) : end].lstrip(b" \t")
    if not VALID_ID.fullmatch(sent.decode("latin-1")):
        return head, None
    return head[:at] + head[end:], sent
