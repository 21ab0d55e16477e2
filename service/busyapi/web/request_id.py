"""The name of a request, by which its sender and our log can speak of it: X-Request-ID.

A client's own is taken when it is sane; it may be logged, so it is short and plain.
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
    """Make one: random for the process, then counted, which is cheaper than random for each."""
    return b"%b-%x" % (_PROCESS_ID, next(_request_numbers))


def accept_or_generate(sent: str | None) -> str:
    """Take what a client sent, or make one."""
    return sent if sent and VALID_ID.fullmatch(sent) else generate().decode()


def extract(head: bytes) -> tuple[bytes, bytes | None]:
    """Take a sane id out of a header, so that headers that differ in it alone are the same.

    One that is not sane stays, and so does a second one.
    """
    at = head.lower().find(_HEADER_LINE)
    if at < 0:
        return head, None
    end = head.find(b"\r\n", at + 2)
    end = len(head) if end < 0 else end
    # No other blanks: a line feed here would be the end of a line to some proxies.
    sent = head[at + len(_HEADER_LINE) : end].lstrip(b" \t")
    if not VALID_ID.fullmatch(sent.decode("latin-1")):
        return head, None
    return head[:at] + head[end:], sent
