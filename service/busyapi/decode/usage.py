"""One usage: bytes to its canonical line, or every reason why not."""

from busyapi.decode.diagnose import BYTE_ORDER_MARK, Unreadable, find_errors, parse_json
from busyapi.decode.incremental import Incremental, run_to_completion
from busyapi.decode.json_line import DEPTH_LIMIT, SHALLOW_BYTES, measure_depth, parse, render
from busyapi.decode.limits import MAX_STEP_BYTES, TOO_DENSE, is_too_dense, max_containers
from busyapi.decode.validation import is_object, is_usage
from busyapi.errors import InvalidUsage, MalformedBody, ValidationError

_LONG = 8_192
"""Bytes that are read thoroughly without a break: up to 1 ms. A longer usage takes a step for each
of the passes over it."""


def decode_usage(raw: bytes, *, strict: bool) -> bytes:
    """Return a usage as one line of JSON, without a newline.

    The line says what the bytes said: both parse to the same value. What cannot be kept so is
    refused, never changed.

    Raises:
        MalformedBody, InvalidUsage: as read_usage.
    """
    return run_to_completion(read_usage(raw, strict=strict))


def read_usage(raw: bytes, *, strict: bool) -> Incremental[bytes]:
    """Do the same in steps.

    Raises:
        MalformedBody: not JSON, not UTF-8, not an object, or nested too deep.
        InvalidUsage: every reason, as pointers into it; none holds a value from it.
    """
    try:
        line = yield from read_line(raw, strict=strict)
    except Unreadable as why:
        reason = str(why)
    else:
        return line
    raise MalformedBody(f"The body {reason}.")


def read_line(raw: bytes, *, strict: bool, tried: bool = False) -> Incremental[bytes]:
    """Do the same for bytes that may be one usage of many; `tried`: the quick reading failed.

    Raises:
        Unreadable: where read_usage says MalformedBody.
        InvalidUsage: as there.
    """
    raw = raw.removeprefix(BYTE_ORDER_MARK)
    line = None if tried else decode_fast(raw, strict=strict, max_bytes=len(raw))
    if line is None:
        line = yield from _decode_with_diagnosis(raw, strict=strict)
    return line


def decode_fast(raw: bytes, *, strict: bool, max_bytes: int = MAX_STEP_BYTES) -> bytes | None:
    """Return the line of an ordinary usage; None: `read_line` takes it, or says why not."""
    brackets, size = 0, len(raw)
    # Fewer bytes than this hold neither many brackets nor deep ones.
    if size > SHALLOW_BYTES:
        # Not by a call: this is what every post goes through.
        brackets = raw.count(b"{") + raw.count(b"[")
        if size > max_bytes or (brackets > DEPTH_LIMIT and brackets > max_containers(size)):
            return None
    try:
        value = parse(raw)
        if (is_usage(value) if strict else is_object(value)) and (
            brackets <= DEPTH_LIMIT or measure_depth(value) <= DEPTH_LIMIT
        ):
            return render(value)
    except (ValueError, RecursionError):
        pass
    return None


def _decode_with_diagnosis(raw: bytes, *, strict: bool) -> Incremental[bytes]:
    is_long = len(raw) > _LONG
    if is_long:
        yield
    value = parse_json(raw)
    if is_long:
        yield
    if is_too_dense(raw):
        raise InvalidUsage([ValidationError("", TOO_DENSE)])
    # UTF-8 has none of its own.
    surrogates = b"\\ud" in raw or b"\\uD" in raw
    found = find_errors(value, strict=strict, surrogates=surrogates)
    if found:
        raise InvalidUsage(found)
    if is_long:
        yield
    return render(value)
