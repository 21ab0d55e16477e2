"""How a request's Idempotency-Key is parsed: its owner, and the body that it identifies.

A key belongs to the credential that sent it, so the keys of two devices never collide. Without
authentication it belongs to the patients of the request. A batch's key belongs to all its patients,
in any order and with any number of usages: if a client reorders the usages of a batch, the retry
is refused as a different body, and is not stored as another batch.
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
    """Return the key of a request with these usages; `credential` is "" without authentication.

    Raises:
        Problem: the key is malformed.
    """
    values = request.headers.getall(KEY_HEADER)
    if len(values) != 1 or not KEY_PATTERN.fullmatch(values[0]):
        raise Problem(400, "Idempotency-Key must be one header of 1 to 128 visible characters.")
    return make_key(values[0].encode(), request.path.rstrip("/").encode(), lines, credential)


def make_key(key: bytes, path: bytes, lines: list[bytes], credential: str) -> IdempotencyKey:
    """Return the digests of a key and of a request to a path with these usages."""
    # The digest includes the path: a batch of one usage is not the same request as that usage.
    return IdempotencyKey(
        key_digest=_digest(_key_owner(lines, credential), key),
        body_digest=_digest(path, *lines),
        legacy_digest=_digest(key),
        request_token=f"{_process_id}{next(_request_numbers):x}",
    )


def _key_owner(lines: list[bytes], credential: str) -> bytes:
    if credential:
        return b"credential " + credential.encode()
    patients = sorted({extract_patient_id(line) for line in lines})
    return b"patients " + sha256(b"\n".join(patients)).digest()


def _digest(*parts: bytes) -> str:
    return sha256(b"\n".join(parts)).hexdigest()[:32]
