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
from busyapi.decode.steps import Steps, finish
from busyapi.errors import Fault, MalformedBody, NotAUsage

_LONG = 8_192
"""Bytes that are read thoroughly without a break: up to 1 ms. A longer usage takes a step for each
of the passes over it."""


def decode_usage(raw: bytes, *, strict: bool) -> bytes:
    """Return a usage as one line of JSON, without a newline.

    The line says what the bytes said: both parse to the same value. What cannot be kept so is
    refused, never changed.

    Raises:
        MalformedBody, NotAUsage: as read_usage.
    """
    return finish(read_usage(raw, strict=strict))


def read_usage(raw: bytes, *, strict: bool) -> Steps[bytes]:
    """Do the same in steps.

    Raises:
        MalformedBody: not JSON, not UTF-8, not an object, or nested too deep.
        NotAUsage: every reason, as pointers into it; none holds a value from it.
    """
    try:
        line = yield from read_line(raw, strict=strict)
    except Unreadable as why:
        reason = str(why)
    else:
        return line
    raise MalformedBody(f"The body {reason}.")


def read_line(raw: bytes, *, strict: bool, tried: bool = False) -> Steps[bytes]:
    """Do the same for bytes that may be one usage of many; `tried`: the quick reading failed.

    Raises:
        Unreadable: where read_usage says MalformedBody.
        NotAUsage: as there.
    """
    raw = raw.removeprefix(BYTE_ORDER_MARK)
    line = None if tried else quick_line(raw, strict=strict, longest=len(raw))
    if line is None:
        line = yield from _read_thoroughly(raw, strict=strict)
    return line


def quick_line(raw: bytes, *, strict: bool, longest: int = STRETCH) -> bytes | None:
    """Return the line of an ordinary usage; None: `read_line` takes it, or says why not."""
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


def _read_thoroughly(raw: bytes, *, strict: bool) -> Steps[bytes]:
    is_long = len(raw) > _LONG
    if is_long:
        yield
    value = read(raw)
    if is_long:
        yield
    if is_too_dense(raw):
        raise NotAUsage([Fault("", TOO_DENSE)])
    # UTF-8 has none of its own.
    surrogates = b"\\ud" in raw or b"\\uD" in raw
    found = faults(value, strict=strict, surrogates=surrogates)
    if found:
        raise NotAUsage(found)
    if is_long:
        yield
    return render(value)
