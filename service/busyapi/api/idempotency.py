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

from busyapi.commit.pending import IdempotencyKey
from busyapi.decode.patient_id import extract_patient_id
from busyapi.web.problems import Problem

KEY_HEADER = "idempotency-key"
KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,128}")

_process_id = token_hex(4)
_request_numbers = count(1)


def parse_key(request: Request, lines: list[bytes], credential: str) -> IdempotencyKey:
    """Read the key of a request with these usages; `credential` is "" without authentication.

    Raises:
        Problem: it is malformed.
    """
    # Sanic leaves the blanks behind a value, which are no part of it (RFC 9110, section 5.5).
    found = [each.strip(" \t") for each in request.headers.getall(KEY_HEADER)]
    if len(found) != 1 or not KEY_PATTERN.fullmatch(found[0]):
        raise Problem(400, "Idempotency-Key must be one header of 1 to 128 visible characters.")
    # The path is part of what is repeated: a batch of one is another request than a usage.
    path = request.path.rstrip("/").encode()
    name = found[0].encode()
    return IdempotencyKey(
        key_digest=_digest(_key_owner(lines, credential), name),
        body_digest=_digest(path, *lines),
        legacy_digest=_digest(name),
        request_token=f"{_process_id}{next(_request_numbers):x}",
    )


def _key_owner(lines: list[bytes], credential: str) -> bytes:
    if credential:
        return b"credential " + credential.encode()
    patients = sorted({extract_patient_id(line) for line in lines})
    return b"patients " + sha256(b"\n".join(patients)).digest()


def _digest(*parts: bytes) -> str:
    return sha256(b"\n".join(parts)).hexdigest()[:32]
