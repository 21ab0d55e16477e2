"""Bodies of type application/x-www-form-urlencoded, as curl and browsers send them.

Fields are read as the WHATWG URL standard reads them: nothing between two `&` is not a field, and a
field without `=` is empty. Every value is text, so a `timestamp` of digits is a number.

Errors about a form use its words.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from busyapi.decode.diagnose import MAX_ERRORS, extend_pointer, is_utf8
from busyapi.decode.incremental import Incremental
from busyapi.decode.usage import read_usage
from busyapi.decode.validation import IS_REQUIRED, MAX_MEDICATION_LENGTH, MAX_PATIENT_ID_LENGTH
from busyapi.errors import InvalidUsage, MalformedBody, ValidationError

MAX_FIELDS = 1000
"""Fields in one form. Parsing a field takes about a microsecond."""
_STEP_BYTES = 4_096
"""Bytes of fields that one step decodes: 0.3 ms if all of them are escapes."""
_FIELD_BYTES = 16
"""Bytes of escapes that take as long as a field without any."""
NUMBER = "-?(?:0|[1-9][0-9]{0,14}|[1-7][0-9]{15}|8[0-5][0-9]{14}|86[0-3][0-9]{13}|8640{13})"
"""A pattern of the digits of an integer within MAX_TIME_MS."""
_match_number = re.compile(NUMBER).fullmatch
INVALID = "The body is a form, but not a usage."

_FIELD_RULES = {
    "/patientId": f"must be a field of 1 to {MAX_PATIENT_ID_LENGTH} characters",
    "/timestamp": "must be a field with a JavaScript Date string, an RFC 3339 date-time, an HTTP"
    " date, or the digits of milliseconds since 1970",
    "/medication": f"must be a field of 1 to {MAX_MEDICATION_LENGTH} characters",
}
"""The rules of `validation`, without the types that only JSON has."""


def read_form(body: bytes, *, strict: bool) -> Incremental[bytes]:
    """Return the line of the usage in a form, in steps.

    Raises:
        MalformedBody: as `form_to_json`.
        InvalidUsage: every error, in the words of a form.
    """
    text = yield from form_to_json(body)
    try:
        line = yield from read_usage(text, strict=strict)
    except InvalidUsage as error:
        errors = error.errors
    else:
        return line
    raise _make_error(map(_reword, errors))


def form_to_json(body: bytes) -> Incremental[bytes]:
    """Return a form's fields as a JSON object of strings, in steps.

    A field that is sent twice is refused: forms, unlike JSON, have no convention for which counts.

    Raises:
        MalformedBody: no field with `=`, too many fields, or not UTF-8.
        InvalidUsage: a field is sent more than once.
    """
    fields = yield from _parse_fields(body)
    if fields is None:
        # Not raised where the parser fails, because its errors hold the payload.
        raise MalformedBody(
            f"The body is not a form of 1 to {MAX_FIELDS} fields name=value in UTF-8."
        )
    repeated = [name for name, times in Counter(name for name, _ in fields).items() if times > 1]
    if repeated:
        detail = "is sent more than once"
        raise _make_error(
            ValidationError(extend_pointer("", name), detail) for name in repeated[:MAX_ERRORS]
        )
    usage: dict[str, str | int] = dict(fields)
    if _match_number(timestamp := str(usage.get("timestamp", ""))):
        usage["timestamp"] = int(timestamp)
    return json.dumps(usage).encode()


def _reword(error: ValidationError) -> ValidationError:
    rule = _FIELD_RULES.get(error.pointer)
    if rule is None:
        return error
    is_missing = error.detail.startswith(IS_REQUIRED)
    return error._replace(detail=f"{IS_REQUIRED if is_missing else ''}{rule}")


def _make_error(errors: Iterable[ValidationError]) -> InvalidUsage:
    return InvalidUsage(list(errors), INVALID)


def _parse_fields(body: bytes) -> Incremental[list[tuple[str, str]] | None]:
    """Return the names and values; None if the body is not a form (WHATWG URL, section 5)."""
    body = body.rstrip(b"\r\n")  # a file ends with a newline, which is not part of its last field
    body = body.strip(b"&")
    # Without any `=` it is text of another kind, such as a usage in a format of its own.
    if b"=" not in body or body.count(b"&") >= MAX_FIELDS or not is_utf8(body):
        return None
    fields = []
    size = 0
    for text in body.replace(b"+", b" ").split(b"&"):
        size += len(text) + _FIELD_BYTES
        if size > _STEP_BYTES:
            size = 0
            yield
        if not text:
            continue
        name, _, value = text.partition(b"=")
        try:
            field = (yield from _decode(name)), (yield from _decode(value))
        except UnicodeDecodeError:
            return None
        fields.append(field)
    return fields


def _decode(text: bytes) -> Incremental[str]:
    if len(text) <= _STEP_BYTES:
        return unquote_to_bytes(text).decode()
    pieces = []
    while text:
        yield
        # An escape has three bytes: none is cut if it does not begin in the last two.
        end = _STEP_BYTES
        percent = text.find(b"%", end - 2, end)
        end = percent if percent >= 0 else end
        pieces.append(unquote_to_bytes(text[:end]))
        text = text[end:]
    return b"".join(pieces).decode()
