"""Many usages in one body: a JSON array, or a line of JSON each (NDJSON). All or nothing."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from busyapi.decode.line import is_shallow, parse, render_all
from busyapi.decode.members import is_object, is_usage
from busyapi.decode.reference import MOST_FAULTS, Unreadable, read
from busyapi.decode.usage import decode_line, render_thoroughly
from busyapi.errors import Fault, MalformedBody, NotAUsage

_Item = TypeVar("_Item")


def decode_batch(raw: bytes, *, ndjson: bool, strict: bool, most: int) -> list[bytes]:
    """Return each usage as its line, in the order sent.

    Raises:
        MalformedBody: the body as a whole is not a JSON array in UTF-8.
        NotAUsage: every bad item by its index, up to MOST_FAULTS reasons; or, at pointer "",
            that there is no usage or more than `most`.
    """
    if ndjson:
        return _decode_ndjson(raw, strict=strict, most=most)
    return _decode_array(raw, strict=strict, most=most)


def _decode_ndjson(raw: bytes, *, strict: bool, most: int) -> list[bytes]:
    """Read a line at a time: read in one go, two broken lines could make one good usage.

    Blank lines after the last usage are no items; one before it is a bad item.
    """
    texts = raw.rstrip(b" \t\r\n").split(b"\n")
    _check_count(0 if texts == [b""] else len(texts), most)
    return _each(texts, lambda text: decode_line(text, strict=strict))


def _decode_array(raw: bytes, *, strict: bool, most: int) -> list[bytes]:
    try:
        usages = parse(raw)
        if type(usages) is list:
            _check_count(len(usages), most)
            if all(map(is_usage if strict else is_object, usages)):
                lines = render_all(usages)
                if all(map(is_shallow, lines, usages)):
                    return lines
    except (ValueError, RecursionError):
        pass  # the second reading says why
    values = _read_array(raw)
    _check_count(len(values), most)
    return _each(values, lambda value: render_thoroughly(value, strict=strict))


def _read_array(raw: bytes) -> list[Any]:
    try:
        value = read(raw)
    except Unreadable as why:
        raise MalformedBody(f"The body {why}.") from None
    if not isinstance(value, list):
        raise MalformedBody(
            "The body is not a JSON array. Lines of JSON are sent as application/x-ndjson."
        )
    return value


def _check_count(count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise NotAUsage([Fault("", f"must hold 1 to {most} usages")])


def _each(items: Iterable[_Item], line_of: Callable[[_Item], bytes]) -> list[bytes]:
    """Return every item's line, or name every bad item by its index."""
    lines: list[bytes] = []
    found: list[Fault] = []
    for index, item in enumerate(items):
        try:
            lines.append(line_of(item))
        except Unreadable as why:
            found.append(Fault(f"/{index}", str(why)))
        except NotAUsage as why:
            found += [Fault(f"/{index}{pointer}", detail) for pointer, detail in why.faults]
        if len(found) >= MOST_FAULTS:
            break
    if found:
        raise NotAUsage(found[:MOST_FAULTS])
    return lines
