"""The id of a request, for its client and for the logs: X-Request-ID.

A client's own id is accepted if it is valid. It may be logged, so it must be short and plain.
"""

import re
import secrets
from collections.abc import Callable
from itertools import chain, repeat

HEADER = "x-request-id"
VALID_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_ID_DIGITS = 20
"""80 random bits: of a billion ids, two are equal with a probability of one in a million."""
_IDS_PER_BLOCK = 512
"""Random bytes are taken for so many ids at a time: a system call for each id would cost more than
the rest of it."""


def _make_block(count: int) -> list[bytes]:
    digits = secrets.token_hex(count * _ID_DIGITS // 2).encode()
    return [digits[at : at + _ID_DIGITS] for at in range(0, len(digits), _ID_DIGITS)]


# Not a counter: each answer would reveal to a stranger how many requests others have sent.
generate: Callable[[], bytes] = chain.from_iterable(
    map(_make_block, repeat(_IDS_PER_BLOCK))
).__next__
"""Return a new id."""


def accept_or_generate(sent: str | None) -> str:
    """Return the id that a client sent if it is valid, or a new one."""
    return sent if sent and VALID_ID.fullmatch(sent) else generate().decode()
