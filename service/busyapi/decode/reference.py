r"""The thorough second reading, by Python's own parser, of what the quick one did not take.

It decides what is JSON and finds every reason against a usage. It is slow and may be: a device
that works never comes here. Where it finds no reason, the usage is taken after all, so what the
quick parser alone cannot read (a byte order mark, say) is not held against a device.

Not taken, though Python's parser takes them, because no line of UTF-8 JSON gives them back:
NaN and Infinity, a number beyond a double (1e999), an unpaired surrogate (\ud800), and nesting
beyond DEPTH_LIMIT. Integers go as far as Python's own limit on digits (4,300).
"""

import json
import math
from collections.abc import Iterable, Iterator
from itertools import islice

from busyapi.decode.line import DEPTH_LIMIT, depth
from busyapi.decode.members import broken_rules
from busyapi.errors import Fault

MOST_FAULTS = 100
"""An answer names no more than these: it must not outgrow the request by much."""

POINTER_LENGTH = 200
"""Characters. Names are the device's own: a longer pointer stops at an ancestor."""

_BYTE_ORDER_MARK = "\ufeff"  # RFC 8259, section 8.1, lets a parser ignore it
_TOO_DEEP = f"is nested deeper than {DEPTH_LIMIT} levels"


class Unreadable(ValueError):
    """The bytes are no JSON object at all; the message completes "The body …"."""


_KEPT = (int, float, bool)
"""What a second reading leaves of these can be kept, and so can what is empty or null."""


class _Unkeepable:
    """Stands in a parsed value for a number that cannot be kept."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


_BEYOND_DOUBLE = _Unkeepable("is a number beyond the range of a double")
_TOO_MANY_DIGITS = _Unkeepable("is an integer of too many digits")


def read(raw: bytes) -> object:
    """Parse JSON; what cannot be kept is in the value, for `faults` to name.

    Raises:
        Unreadable: the bytes are not JSON in UTF-8.
    """
    # Raised below, not in the handlers: the parsers' errors hold the payload and would hang on
    # ours as its context, where a log could print them.
    try:
        return _DECODER.decode(raw.decode().removeprefix(_BYTE_ORDER_MARK))
    except UnicodeDecodeError:
        reason = "is not UTF-8"
    except json.JSONDecodeError as wrong:
        reason = f"is not JSON, at line {wrong.lineno}, column {wrong.colno}"
        if not wrong.doc.strip():
            reason = "is empty"
    except RecursionError:
        reason = _TOO_DEEP
    raise Unreadable(reason)


def faults(value: object, *, strict: bool) -> list[Fault]:
    """Name every reason, up to MOST_FAULTS, why a parsed value cannot be taken as a usage.

    Raises:
        Unreadable: it is no object, or nested too deep.
    """
    if not isinstance(value, dict):
        raise Unreadable("is not a JSON object")
    if depth(value) > DEPTH_LIMIT:
        raise Unreadable(_TOO_DEEP)
    found = list(broken_rules(value)) if strict else []
    found.extend(islice(_unkeepable(value), MOST_FAULTS - len(found)))
    return found


def _unkeepable(usage: object) -> Iterator[Fault]:
    rest: list[tuple[str, object]] = [("", usage)]
    while rest:
        pointer, value = rest.pop()
        if isinstance(value, _Unkeepable):
            yield Fault(pointer, value.reason)
        elif isinstance(value, str):
            if not _is_unicode(value):
                yield Fault(pointer, "holds an unpaired surrogate, which is no character")
        elif isinstance(value, dict):
            if not all(map(_is_unicode, value)):
                yield Fault(pointer, "has a member whose name holds an unpaired surrogate")
            rest += _to_look_at(pointer, value.items())
        elif isinstance(value, list):
            rest += _to_look_at(pointer, enumerate(value))


def _to_look_at(pointer: str, inside: Iterable[tuple[object, object]]) -> list[tuple[str, object]]:
    """List what may hold something unkeepable, with pointers, the first last: a stack."""
    return [
        (step(pointer, str(name)), value)
        for name, value in inside
        if value and type(value) not in _KEPT
    ][::-1]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def step(pointer: str, name: str) -> str:
    """Return the pointer one name further (RFC 6901), or the same if that cannot be said."""
    longer = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
    return longer if len(longer) <= POINTER_LENGTH and _is_unicode(name) else pointer


def _float(digits: str) -> float | _Unkeepable:
    number = float(digits)
    return number if math.isfinite(number) else _BEYOND_DOUBLE


def _int(digits: str) -> int | _Unkeepable:
    try:
        return int(digits)
    except ValueError:
        return _TOO_MANY_DIGITS


def _constant(_name: str) -> None:
    raise Unreadable("is not JSON: NaN and Infinity are no numbers in it")


# The hooks may return what they like; only the stub of parse_float says float.
_DECODER = json.JSONDecoder(parse_float=_float, parse_int=_int, parse_constant=_constant)
