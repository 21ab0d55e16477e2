"""Bodies of type application/x-www-form-urlencoded, as curl and browsers send them."""

import json
from collections import Counter
from urllib.parse import parse_qsl

from busyapi.decode.diagnose import MAX_ERRORS, extend_pointer
from busyapi.errors import InvalidUsage, MalformedBody, ValidationError

MAX_FIELDS = 1000
"""Fields in one form. Parsing a field takes about a microsecond."""


def form_to_json(body: bytes) -> bytes:
    """Return a form's fields as a JSON object of strings.

    A field that is sent twice is refused: forms, unlike JSON, have no convention for which counts.

    Raises:
        MalformedBody: no fields, a field without `=`, too many fields, or not UTF-8.
        InvalidUsage: a field is sent more than once.
    """
    fields = _parse_fields(body)
    repeated = [name for name, times in Counter(name for name, _ in fields).items() if times > 1]
    if repeated:
        detail = "is sent more than once"
        raise InvalidUsage(
            [ValidationError(extend_pointer("", name), detail) for name in repeated[:MAX_ERRORS]]
        )
    return json.dumps(dict(fields)).encode()


def _parse_fields(body: bytes) -> list[tuple[str, str]]:
    # Raise below, not in the handler: the parser's errors hold the payload.
    try:
        fields = parse_qsl(
            body.decode().rstrip(
                "\r\n"
            ),  # a file ends with a newline, which is not part of its last field
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        fields = []
    if not fields:
        raise MalformedBody(
            f"The body is not a form of 1 to {MAX_FIELDS} fields name=value in UTF-8."
        )
    return fields
