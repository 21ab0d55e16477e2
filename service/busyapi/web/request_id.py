"""The name of a request, by which its sender and our log can speak of it: X-Request-ID.

A client's own is taken when it is sane; it may be logged, so it is short and plain.
"""

import re
import secrets
from itertools import count

HEADER = "x-request-id"
SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_LINE = b"\r\nx-request-id:"
_PROCESS = secrets.token_hex(6).encode()
_numbers = count(1)


def made() -> bytes:
    """Make one: random for the process, then counted, which is cheaper than random for each."""
    return b"%b-%x" % (_PROCESS, next(_numbers))


def chosen(sent: str | None) -> str:
    """Take what a client sent, or make one."""
    return sent if sent and SANE.fullmatch(sent) else made().decode()


def cut(head: bytes) -> tuple[bytes, bytes | None]:
    """Take a sane id out of a header, so that headers that differ in it alone are the same.

    One that is not sane stays, and so does a second one.
    """
    at = head.lower().find(_LINE)
    if at < 0:
        return head, None
    end = head.find(b"\r\n", at + 2)
    end = len(head) if end < 0 else end
    # No other blanks: a line feed here would be the end of a line to some proxies.
    sent = head[at + len(_LINE) : end].lstrip(b" \t")
    if not SANE.fullmatch(sent.decode("latin-1")):
        return head, None
    return head[:at] + head[end:], sent
