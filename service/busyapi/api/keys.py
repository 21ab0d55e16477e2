"""An Idempotency-Key: whose it is, and what it stands for.

A key belongs to the credential that sent it, so that no device meets another's. Without credentials
it belongs to the patients of the request: of a batch to all of them, whatever their order and
number of usages, so that a batch whose usages were put into another order is refused as another
body and not stored as another batch.
"""

import re
from hashlib import sha256
from itertools import count
from secrets import token_hex

from sanic import Request

from busyapi.commit.batch import Key
from busyapi.decode.patient import patient
from busyapi.web.problems import Problem

KEY_HEADER = "idempotency-key"
KEY = re.compile(r"[\x21-\x7e]{1,128}")

_process = token_hex(4)
_requests = count(1)


def key(request: Request, lines: list[bytes], credential: str) -> Key:
    """Read the key of a request with these usages; `credential` is "" without authentication.

    Raises:
        Problem: it is malformed.
    """
    # Sanic leaves the blanks behind a value, which are no part of it (RFC 9110, section 5.5).
    found = [each.strip(" \t") for each in request.headers.getall(KEY_HEADER)]
    if len(found) != 1 or not KEY.fullmatch(found[0]):
        raise Problem(400, "Idempotency-Key must be one header of 1 to 128 visible characters.")
    # The path is part of what is repeated: a batch of one is another request than a usage.
    path = request.path.rstrip("/").encode()
    name = found[0].encode()
    return Key(
        digest=_digest(_owner(lines, credential), name),
        body=_digest(path, *lines),
        unscoped=_digest(name),
        sign=f"{_process}{next(_requests):x}",
    )


def _owner(lines: list[bytes], credential: str) -> bytes:
    if credential:
        return b"credential " + credential.encode()
    patients = sorted({patient(line) for line in lines})
    return b"patients " + sha256(b"\n".join(patients)).digest()


def _digest(*parts: bytes) -> str:
    return sha256(b"\n".join(parts)).hexdigest()[:32]
