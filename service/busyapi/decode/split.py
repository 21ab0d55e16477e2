"""A JSON array as unparsed items: msgspec skips a value 10 times as fast as it parses it.

The end of an item is certain, whatever the item holds. Its strings may still be invalid JSON, which
shows when the item is parsed.
"""

import re
from typing import Any

import msgspec

from busyapi.decode.diagnose import TOO_DEEP
from busyapi.decode.incremental import Incremental
from busyapi.errors import MalformedBody

_ONE_CALL_BYTES = 524_288
"""An array up to this size is split in one call: 10 ms and 16 MiB if all its items are digits."""
_STEP_BYTES = 262_144
"""Bytes of a larger array that one step splits, or one item."""
_ITEMS_IN_STEP = 500
_BLANKS = b" \t\r\n"

_all_items: Any = msgspec.json.Decoder(list[msgspec.Raw]).decode
_first_item: Any = msgspec.json.Decoder(msgspec.Raw).decode
_POSITION = re.compile(r"\(byte ([0-9]+)\)")
_TRAILING = re.compile(r"trailing characters \(byte ([0-9]+)\)")
"""The error for bytes that follow a value. Of all errors, only its position is one too large."""


def split_array(raw: bytes, max_items: int) -> Incremental[list[Any]]:
    """Return the items of an array as buffers; if it has over `max_items`, more than that many.

    Raises:
        MalformedBody: not an array, or a bracket, a comma or a number is wrong.
    """
    # msgspec would refuse an unpaired surrogate here. It is an error of its item, to be reported
    # there; so the ends of items are found in a copy with other characters in place of surrogates.
    scanned = raw.replace(b"\\ud", b"\\u0")
    if len(raw) > _ONE_CALL_BYTES:
        yield
    scanned = scanned.replace(b"\\uD", b"\\u0")
    begin = yield from _skip_blanks(raw, 0)
    if raw[begin : begin + 1] != b"[":
        _check_json(scanned)
        raise MalformedBody(
            "The body is not a JSON array. Lines of JSON are sent as application/x-ndjson."
        )
    first = yield from _skip_blanks(raw, begin + 1)
    if raw[first : first + 1] == b"]" and (yield from _skip_blanks(raw, first + 1)) == len(raw):
        return []
    if len(raw) > _ONE_CALL_BYTES or scanned != raw:
        items: list[Any] = yield from _split_one_by_one(raw, scanned, max_items)
        return items
    try:
        items = _all_items(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        message = describe_error(raw, 0, error)
    else:
        return items
    raise _make_error(message)


def _skip_blanks(raw: bytes, at: int) -> Incremental[int]:
    """Return the position after the whitespace that begins at a position."""
    while piece := raw[at : at + _STEP_BYTES]:
        rest = piece.lstrip(_BLANKS)
        at += len(piece) - len(rest)
        if rest:
            break
        yield
    return at


def _split_one_by_one(raw: bytes, scanned: bytes, max_items: int) -> Incremental[list[Any]]:
    """Split off up to `max_items` items and one more, and ignore the rest.

    The buffers of two million items would take 100 MiB before anything could count them.
    """
    items: list[Any] = []
    view, at, end, pause = memoryview(scanned), raw.index(b"[") + 1, b",", 0
    while end == b",":
        if len(items) > max_items:
            return items
        if at > pause or len(items) % _ITEMS_IN_STEP == 0:
            yield
            pause = at + _STEP_BYTES
        stop = _find_value_end(raw, view, at)
        items.append(raw[at:stop].strip(_BLANKS))
        end, at = raw[stop : stop + 1], stop + 1
    rest = raw[at:]
    if end != b"]" or rest.strip(_BLANKS):
        position = at - 1 if end != b"]" else at + len(rest) - len(rest.lstrip(_BLANKS))
        raise _make_error(_describe_position(raw, position))
    return items


def _find_value_end(raw: bytes, view: memoryview, at: int) -> int:
    """Return the end of the value that begins at a position and of the whitespace after it."""
    try:
        _first_item(view[at:])
    except (msgspec.DecodeError, RecursionError) as error:
        # msgspec reports it only in this way: it skips one value and refuses the bytes after it.
        if trailing := _TRAILING.search(str(error)):
            return at + int(trailing[1]) - 1
        message = describe_error(raw, at, error)
    else:
        message = _describe_position(raw, len(raw))
    raise _make_error(message)


def _check_json(raw: bytes) -> None:
    if message := find_syntax_error(raw):
        raise _make_error(message)


def find_syntax_error(raw: bytes) -> str:
    """Return what is wrong with the syntax of some JSON, as the end of "The body …", or ""."""
    try:
        _first_item(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        return describe_error(raw, 0, error)
    return ""


def replace_surrogates(raw: bytes) -> bytes:
    """Return JSON with other characters in place of escaped surrogates, and of the same length.

    msgspec refuses an unpaired surrogate without its position.
    """
    return raw.replace(b"\\ud", b"\\u0").replace(b"\\uD", b"\\u0")


def _make_error(message: str) -> MalformedBody:
    return MalformedBody(f"The body {message}.")


def describe_error(raw: bytes, at: int, error: Exception) -> str:
    """Return where msgspec, which parsed from a position on, failed, as `find_syntax_error` does.

    The text of msgspec's error does not get out. The caller gets a message and not an exception:
    an exception in a local variable is in a cycle with its own traceback, and would keep the body
    in memory until the collector runs.
    """
    if isinstance(error, RecursionError):
        return TOO_DEEP
    if not raw.strip(_BLANKS):
        return "is empty"
    position = _POSITION.search(str(error))
    offset = at + int(position[1]) if position else len(raw)
    return _describe_position(raw, offset - 1 if _TRAILING.search(str(error)) else offset)


def _describe_position(raw: bytes, at: int) -> str:
    before = raw[:at]
    line, begin = before.count(b"\n") + 1, before.rfind(b"\n") + 1
    column = len(before[begin:].decode(errors="replace")) + 1
    return f"is not JSON, at line {line}, column {column}"
