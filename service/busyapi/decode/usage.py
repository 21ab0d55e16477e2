"""One usage: from bytes to its canonical line, or to every error."""

from typing import Any

from busyapi.decode.canonical import match_canonical
from busyapi.decode.diagnose import BYTE_ORDER_MARK, Unreadable, find_errors, parse_json
from busyapi.decode.incremental import Incremental, run_to_completion
from busyapi.decode.json_line import (
    DEPTH_LIMIT,
    SHALLOW_BYTES,
    measure_depth,
    parse,
    parse_doubles,
    render,
)
from busyapi.decode.limits import (
    LONG_BYTES,
    MIN_LONG_INTEGER_DIGITS,
    TOO_DENSE,
    is_too_dense,
    max_containers,
    may_hold_long_integer,
    scan_numbers,
)
from busyapi.decode.long_usage import read_long_usage
from busyapi.decode.surrogates import mark_unpaired, may_hold_surrogates, replace_marks
from busyapi.decode.validation import convert_whole_numbers, is_object, is_ordinary_usage
from busyapi.errors import InvalidUsage, MalformedBody, ValidationError

_UNSCANNED_BYTES = 512
"""In a usage up to this size, reading all floats slowly costs less than scanning the numbers."""


def decode_usage(raw: bytes, *, strict: bool) -> bytes:
    """Return a usage as one line of JSON, without a newline.

    The line and the bytes parse to the same value, to a parser for which 1 and 1.0 are equal. A
    usage for which this is not possible is refused, never changed, except for unpaired surrogates:
    see `surrogates`.

    Raises:
        MalformedBody, InvalidUsage: as read_usage raises them.
    """
    return run_to_completion(read_usage(raw, strict=strict))


def read_usage(raw: bytes, *, strict: bool) -> Incremental[bytes]:
    """Return a usage as one line of JSON, in steps.

    Raises:
        MalformedBody: not JSON, not UTF-8, not an object, or nested too deep.
        InvalidUsage: every error with a pointer into the usage, and without a value from it.
    """
    try:
        line = yield from read_line(raw, strict=strict)
    except Unreadable as error:
        reason = str(error)
    else:
        return line
    raise MalformedBody(f"The body {reason}.")


def read_line(raw: bytes, *, strict: bool) -> Incremental[bytes]:
    """Return the line of a usage that may be one of many.

    Raises:
        Unreadable: in the cases in which read_usage raises MalformedBody.
        InvalidUsage: as read_usage raises it.
    """
    raw = raw.removeprefix(BYTE_ORDER_MARK)
    if len(raw) > LONG_BYTES:
        line = yield from read_long_usage(raw, strict=strict)
        return line
    mark = ""
    if may_hold_surrogates(raw):
        raw, mark = yield from mark_unpaired(raw)
    numbers = scan_numbers(raw)
    # If each float needs a Python call, only one of the two parsers makes these calls.
    value = None if numbers.may_exceed_doubles else _parse_fast(raw)
    is_storable = value is not None
    if value is None:
        value = parse_json(raw, numbers)
    if len(raw) > SHALLOW_BYTES and is_too_dense(raw):
        raise InvalidUsage([ValidationError("", TOO_DENSE)])
    errors = find_errors(value, raw, mark, strict=strict, is_storable=is_storable)
    if errors:
        raise InvalidUsage(errors)
    if strict:
        convert_whole_numbers(value)
    return replace_marks(render(value), mark)


def decode_fast(raw: bytes, *, strict: bool) -> bytes | None:
    """Return the line of an ordinary usage; None if it needs the full parser, `read_line`.

    The time of a strictly validated line is plausible.
    """
    if strict and match_canonical(raw):
        return raw
    brackets, size, read = 0, len(raw), parse
    # A shorter usage can hold neither too many brackets nor too deep ones.
    if size > SHALLOW_BYTES:
        # Not `count_brackets`: every post runs this code, and a call costs time.
        brackets = raw.count(b"{") + raw.count(b"[")
        if size > LONG_BYTES or (brackets > DEPTH_LIMIT and brackets > max_containers(size)):
            return None
        if size > _UNSCANNED_BYTES:
            numbers = scan_numbers(raw)
            if numbers.may_be_long_integers:
                return None
            if not numbers.may_exceed_doubles:
                read = parse_doubles
        elif size > MIN_LONG_INTEGER_DIGITS and may_hold_long_integer(raw):
            return None
    try:
        value = read(raw)
        if (is_ordinary_usage(value) if strict else is_object(value)) and (
            brackets <= DEPTH_LIMIT or measure_depth(value) <= DEPTH_LIMIT
        ):
            return render(value)
    except (ValueError, RecursionError):
        pass
    return None


def _parse_fast(raw: bytes) -> Any:
    """Return the value of JSON that has only doubles; None if it needs the full parser."""
    try:
        return parse_doubles(raw)
    except (ValueError, RecursionError):
        return None
