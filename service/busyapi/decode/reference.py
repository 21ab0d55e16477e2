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

from busyapi.decode.line import DEPTH_LIMIT, depth, render
from busyapi.decode.members import broken_rules
from busyapi.errors import Fault

MOST_FAULTS = 100
"""An answer names no more than these: it must not outgrow the request by much."""

POINTER_BYTES = 200
"""Bytes of the answer. Names are the device's own: a longer pointer stops at an ancestor."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # RFC 8259, section 8.1, lets a parser ignore it
_TOO_DEEP = f"is nested deeper than {DEPTH_LIMIT} levels"


class Unreadable(ValueError):
    """The bytes are no JSON object at all; the message completes "The body …"."""


class NotJson(Unreadable):
    """The bytes are not JSON in UTF-8."""


_KEPT = frozenset((int, bool, type(None)))
"""What the second reading leaves of these can be kept."""


class _Unkeepable:
    """Stands in a parsed value for a number that cannot be kept."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


_TOO_MANY_DIGITS = _Unkeepable("is an integer of too many digits")


def read(raw: bytes) -> object:
    """Parse JSON; what cannot be kept is in the value, for `faults` to name.

    Raises:
        Unreadable: the bytes are not JSON in UTF-8.
    """
    # Raised below, not in the handlers: the parsers' errors hold the payload and would hang on
    # ours as its context, where a log could print them.
    try:
        return _read(raw.decode())
    except UnicodeDecodeError:
        reason = "is not UTF-8"
    except json.JSONDecodeError as wrong:
        reason = f"is not JSON, at line {wrong.lineno}, column {wrong.colno}"
        if not wrong.doc.strip():
            reason = "is empty"
    except RecursionError:
        reason = _TOO_DEEP
    raise Unreadable(reason) if reason == _TOO_DEEP else NotJson(reason)


def _read(text: str) -> object:
    try:
        return _DECODER.decode(text)
    except (json.JSONDecodeError, Unreadable):
        raise
    except ValueError:
        pass
    # A function called for each integer makes this three times as slow, so it is the last resort.
    return _DECODER_OF_DIGITS.decode(text)


def faults(value: object, *, strict: bool, surrogates: bool) -> list[Fault]:
    """Name every reason, up to MOST_FAULTS, why a parsed value cannot be taken as a usage.

    `surrogates` says whether its texts may hold any.

    Raises:
        Unreadable: it is no object, or nested too deep.
    """
    if not isinstance(value, dict):
        raise Unreadable("is not a JSON object")
    if depth(value) > DEPTH_LIMIT:
        raise Unreadable(_TOO_DEEP)
    found = list(broken_rules(value)) if strict else []
    found.extend(islice(_unkeepable(value, surrogates=surrogates), MOST_FAULTS - len(found)))
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
        return reduce(step, reversed(names), "")


def _unkeepable(usage: object, *, surrogates: bool) -> Iterator[Fault]:
    # Most objects and arrays hold nothing to look at, which these say at the speed of C.
    kept = _KEPT if surrogates else _KEPT | {str}
    numbers = kept | {float}
    rest = [_Node(None, "", usage)]
    while rest:
        node = rest.pop()
        value = node.value
        if type(value) is dict:
            if not (all(map(str.isascii, value)) or all(map(_is_unicode, value))):
                detail = "has a member whose name holds an unpaired surrogate"
                yield Fault(node.pointer(), detail)
            inside: Any = value.values()
        elif type(value) is list:
            inside = value
        else:
            if detail := _why_not_kept(value):
                yield Fault(node.pointer(), detail)
            continue
        if not numbers.issuperset(map(type, inside)) or inf in inside or -inf in inside:
            named: Any = value.items() if type(value) is dict else enumerate(inside)
            found = [_Node(node, n, each) for n, each in named if each and type(each) not in kept]
            rest += found[::-1]  # a stack: the first is looked at first


def _why_not_kept(value: object) -> str:
    if isinstance(value, _Unkeepable):
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


def step(pointer: str, name: str) -> str:
    """Return the pointer one name further (RFC 6901), or the same if that cannot be said."""
    longer = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
    try:
        size = len(render(longer)) - 2  # without the quotes
    except UnicodeEncodeError:
        return pointer
    return longer if size <= POINTER_BYTES else pointer


def _integer(digits: str) -> int | _Unkeepable:
    try:
        return int(digits)
    except ValueError:
        return _TOO_MANY_DIGITS


def _constant(_name: str) -> None:
    raise NotJson("is not JSON: NaN and Infinity are no numbers in it")


_DECODER = json.JSONDecoder(parse_constant=_constant)
_DECODER_OF_DIGITS = json.JSONDecoder(parse_constant=_constant, parse_int=_integer)
