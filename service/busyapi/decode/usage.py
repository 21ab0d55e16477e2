"""One usage: bytes to its canonical line, or every reason why not."""

from busyapi.decode.line import is_shallow, parse, render
from busyapi.decode.members import is_object, is_usage
from busyapi.decode.reference import Unreadable, faults, read
from busyapi.errors import MalformedBody, NotAUsage


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
    line = quick_line(raw, strict=strict)
    return render_thoroughly(read(raw), strict=strict) if line is None else line


def quick_line(raw: bytes, *, strict: bool) -> bytes | None:
    """Return the line of an ordinary usage; None: `decode_usage` takes it, or says why not."""
    try:
        value = parse(raw)
        if is_usage(value) if strict else is_object(value):
            line = render(value)
            if is_shallow(line, value):
                return line
    except (ValueError, RecursionError):
        pass
    return None


def render_thoroughly(value: object, *, strict: bool) -> bytes:
    """Return the line of a value from the second reading.

    Raises:
        Unreadable: it is no object, or nested too deep.
        NotAUsage: every reason.
    """
    if found := faults(value, strict=strict):
        raise NotAUsage(found)
    return render(value)
