"""One usage: bytes to its canonical line, or every reason why not."""

from busyapi.decode.bounds import (
    STRETCH,
    TOO_DENSE,
    is_too_dense,
    most_containers,
)
from busyapi.decode.line import DEPTH_LIMIT, SHALLOW_BYTES, depth, parse, render
from busyapi.decode.members import is_object, is_usage
from busyapi.decode.reference import BYTE_ORDER_MARK, Unreadable, faults, read
from busyapi.errors import Fault, MalformedBody, NotAUsage


def decode_usage(raw: bytes, *, strict: bool) -> bytes:
    """Return a usage as one line of JSON, without a newline.

    The line says what the bytes said: both parse to the same value. What cannot be kept so is
    refused, never changed.

    Raises:
        MalformedBody: not JSON, not UTF-8, not an object, or nested too deep.
        NotAUsage: every reason, as pointers into it; none holds a value from it.
    """
    try:
        return decode_line(raw, strict=strict)
    except Unreadable as why:
        raise MalformedBody(f"The body {why}.") from None


def decode_line(raw: bytes, *, strict: bool) -> bytes:
    """Do the same for bytes that may be one usage of many.

    Raises:
        Unreadable: where decode_usage says MalformedBody.
        NotAUsage: as there.
    """
    raw = raw.removeprefix(BYTE_ORDER_MARK)
    line = quick_line(raw, strict=strict, longest=len(raw))
    if line is None:
        line = _read_thoroughly(raw, strict=strict)
    return line


def quick_line(raw: bytes, *, strict: bool, longest: int = STRETCH) -> bytes | None:
    """Return the line of an ordinary usage; None: `decode_usage` takes it, or says why not."""
    brackets, size = 0, len(raw)
    # Fewer bytes than this hold neither many brackets nor deep ones.
    if size > SHALLOW_BYTES:
        # Not by a call: this is what every post goes through.
        brackets = raw.count(b"{") + raw.count(b"[")
        if size > longest or (brackets > DEPTH_LIMIT and brackets > most_containers(size)):
            return None
    try:
        value = parse(raw)
        if (is_usage(value) if strict else is_object(value)) and (
            brackets <= DEPTH_LIMIT or depth(value) <= DEPTH_LIMIT
        ):
            return render(value)
    except (ValueError, RecursionError):
        pass
    return None


def _read_thoroughly(raw: bytes, *, strict: bool) -> bytes:
    value = read(raw)
    if is_too_dense(raw):
        raise NotAUsage([Fault("", TOO_DENSE)])
    # UTF-8 has none of its own.
    surrogates = b"\\ud" in raw or b"\\uD" in raw
    if found := faults(value, strict=strict, surrogates=surrogates):
        raise NotAUsage(found)
    return render(value)
