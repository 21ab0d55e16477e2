r"""The thorough second reading, by Python's own parser, of what the quick one did not take.

It decides what is JSON and finds every reason against a usage. It is slow and may be: a device
that works never comes here. Where it finds no reason, the usage is taken after all, so what the
quick parser alone cannot read (a byte order mark, say) is not held against a device.

Not taken, though Python's parser takes them, because no line of UTF-8 JSON gives them back:
NaN and Infinity, a number beyond a double (1e999), an unpaired surrogate (\ud800), and nesting
beyond DEPTH_LIMIT. Integers go as far as Python's own limit on digits (4,300).
"""

import json
from collections.abc import Iterator
from functools import reduce
from itertools import islice
from math import inf
from typing import Any, NamedTuple

from busyapi.decode.json_line import DEPTH_LIMIT, measure_depth, render
from busyapi.decode.validation import find_rule_errors
from busyapi.errors import ValidationError

MAX_ERRORS = 100
"""An answer names no more than these: it must not outgrow the request by much."""

MAX_POINTER_BYTES = 200
"""Bytes of the answer. Names are the device's own: a longer pointer stops at an ancestor."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # RFC 8259, section 8.1, lets a parser ignore it
_TOO_DEEP = f"is nested deeper than {DEPTH_LIMIT} levels"


class Unreadable(ValueError):
    """The bytes are no JSON object at all; the message completes "The body …"."""


class NotJson(Unreadable):
    """The bytes are not JSON in UTF-8."""


_SUPPORTED_TYPES = frozenset((int, bool, type(None)))
"""What the second reading leaves of these can be kept."""


class _UnsupportedNumber:
    """Stands in a parsed value for a number that cannot be kept."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


_TOO_MANY_DIGITS = _UnsupportedNumber("is an integer of too many digits")


def parse_json(raw: bytes) -> object:
    """Parse JSON; what cannot be kept is in the value, for `find_errors` to name.

    Raises:
        Unreadable: the bytes are not JSON in UTF-8.
    """
    # Raised below, not in the handlers: the parsers' errors hold the payload and would hang on
    # ours as its context, where a log could print them.
    try:
        return _parse_text(raw.decode())
    except UnicodeDecodeError:
        reason = "is not UTF-8"
    except json.JSONDecodeError as wrong:
        reason = f"is not JSON, at line {wrong.lineno}, column {wrong.colno}"
        if not wrong.doc.strip():
            reason = "is empty"
    except RecursionError:
        reason = _TOO_DEEP
    raise Unreadable(reason) if reason == _TOO_DEEP else NotJson(reason)


def _parse_text(text: str) -> object:
    try:
        return _DECODER.decode(text)
    except (json.JSONDecodeError, Unreadable):
        raise
    except ValueError:
        pass
    # A function called for each integer makes this three times as slow, so it is the last resort.
    return _LONG_INTEGER_DECODER.decode(text)


def find_errors(value: object, *, strict: bool, surrogates: bool) -> list[ValidationError]:
    """Name every reason, up to MAX_FAULTS, why a parsed value cannot be taken as a usage.

    `surrogates` says whether its texts may hold any.

    Raises:
        Unreadable: it is no object, or nested too deep.
    """
    if not isinstance(value, dict):
        raise Unreadable("is not a JSON object")
    if measure_depth(value) > DEPTH_LIMIT:
        raise Unreadable(_TOO_DEEP)
    found = list(find_rule_errors(value)) if strict else []
    found.extend(islice(_find_unsupported(value, surrogates=surrogates), MAX_ERRORS - len(found)))
    return found


class _Node(NamedTuple):
    """A value and the way to it: pointers are made of what is named, not of all that is read."""

    parent: "_Node | None"
    name: str | int
    value: object

    def pointer(self) -> str:
        names: list[str] = []
        node = self
        while node.parent:
            names.append(str(node.name))
            node = node.parent
        return reduce(extend_pointer, reversed(names), "")


def _find_unsupported(usage: object, *, surrogates: bool) -> Iterator[ValidationError]:
    # Most objects and arrays hold nothing to look at, which these say at the speed of C.
    kept = _SUPPORTED_TYPES if surrogates else _SUPPORTED_TYPES | {str}
    numbers = kept | {float}
    rest = [_Node(None, "", usage)]
    while rest:
        node = rest.pop()
        value = node.value
        if type(value) is dict:
            if not (all(map(str.isascii, value)) or all(map(_is_unicode, value))):
                detail = "has a member whose name holds an unpaired surrogate"
                yield ValidationError(node.pointer(), detail)
            inside: Any = value.values()
        elif type(value) is list:
            inside = value
        else:
            if detail := _unsupported_reason(value):
                yield ValidationError(node.pointer(), detail)
            continue
        if not numbers.issuperset(map(type, inside)) or inf in inside or -inf in inside:
            named: Any = value.items() if type(value) is dict else enumerate(inside)
            found = [_Node(node, n, each) for n, each in named if each and type(each) not in kept]
            rest += found[::-1]  # a stack: the first is looked at first


def _unsupported_reason(value: object) -> str:
    if isinstance(value, _UnsupportedNumber):
        return value.reason
    if type(value) is float and value in {inf, -inf}:
        return "is a number beyond the range of a double"
    if type(value) is str and not (value.isascii() or _is_unicode(value)):
        return "holds an unpaired surrogate, which is no character"
    return ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def extend_pointer(pointer: str, name: str) -> str:
    """Return the pointer one name further (RFC 6901), or the same if that cannot be said."""
    longer = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
    try:
        size = len(render(longer)) - 2  # without the quotes
    except UnicodeEncodeError:
        return pointer
    return longer if size <= MAX_POINTER_BYTES else pointer


def _parse_integer(digits: str) -> int | _UnsupportedNumber:
    try:
        return int(digits)
    except ValueError:
        return _TOO_MANY_DIGITS


def _refuse_constant(_name: str) -> None:
    raise NotJson("is not JSON: NaN and Infinity are no numbers in it")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_LONG_INTEGER_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_parse_integer)
