r"""The full parser: Python's own reads what the fast decoder did not accept.

It decides what is JSON and finds every error of a usage. It may be slow, because the usages of a
working device never get here. A usage without an error is accepted after all, so a device is not
refused for what only the fast parser cannot read (a byte order mark, for example).

Python's parser accepts some values that no line of UTF-8 JSON can reproduce for all readers. They
are refused: NaN and Infinity, a number beyond a double (1e999, or an integer of 310 digits), and
nesting beyond DEPTH_LIMIT. Unpaired surrogates are replaced before: see `surrogates`.

A long usage does not get here: see `long_usage`.
"""

import json
import sys
from collections.abc import Iterator
from functools import reduce
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from busyapi.decode.json_line import DEPTH_LIMIT, measure_depth, parse_number, render
from busyapi.decode.limits import MIN_LONG_INTEGER_DIGITS, Numbers, count_brackets
from busyapi.decode.patient_id import is_integer_as_sent
from busyapi.decode.surrogates import find_marked_members
from busyapi.decode.validation import PATIENT_ID_RULE, find_rule_errors, is_ordinary_usage
from busyapi.errors import ValidationError

MAX_ERRORS = 100
"""Errors in one response, which must not be much larger than the request."""

MAX_POINTER_BYTES = 200
"""Bytes of one pointer in a response. The names come from the device: a longer pointer ends at an
ancestor."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # RFC 8259, section 8.1, lets a parser ignore it
NOT_UTF8 = "is not UTF-8"
TOO_DEEP = f"is nested deeper than {DEPTH_LIMIT} levels"


class Unreadable(ValueError):
    """The bytes are not a JSON object; the message completes "The body …"."""


class NotJson(Unreadable):
    """The bytes are not JSON in UTF-8."""


def make_unreadable(reason: str) -> Unreadable:
    """Return the error for a reason; what is nested too deep may still be JSON."""
    return Unreadable(reason) if reason == TOO_DEEP else NotJson(reason)


def is_utf8(raw: bytes) -> bool:
    """Return whether bytes are UTF-8, without an error that would hold them."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


_SUPPORTED_TYPES = frozenset((int, float, bool, str, type(None), msgspec.Raw))
"""A parsed value of one of these types can always be stored."""
_EXACT = (str, int)
"""The types of a patient id that is as it was sent."""


class _UnsupportedNumber:
    """A placeholder, in a parsed value, for a number that cannot be stored."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


_TOO_LARGE = _UnsupportedNumber("is a number beyond the range of a double")
_MAX_INTEGER = int(sys.float_info.max)


def parse_json(raw: bytes, numbers: Numbers) -> Any:
    """Parse JSON; the value may hold what cannot be stored, for `find_errors` to report.

    Raises:
        Unreadable: the bytes are not JSON in UTF-8.
    """
    # Raise below, not in the handlers: the parsers' errors hold the payload. As the context of the
    # new error, they could get into a log.
    try:
        text, decoder = raw.decode(), _choose_decoder(numbers)
        if text.startswith("{"):
            # `decode` looks for blanks around the value, which takes longer than the value.
            value, end = decoder.raw_decode(text)
            if end == len(text):
                return value
        return decoder.decode(text)
    except UnicodeDecodeError:
        reason = NOT_UTF8
    except json.JSONDecodeError as error:
        reason = f"is not JSON, at line {error.lineno}, column {error.colno}"
        if not error.doc.strip():
            reason = "is empty"
    except RecursionError:
        reason = TOO_DEEP
    raise make_unreadable(reason)


def find_errors(
    value: object, raw: bytes, mark: str, *, strict: bool, is_storable: bool
) -> list[ValidationError]:
    """Return the errors, up to MAX_ERRORS, of a value that was read from `raw`.

    `mark` is in the place of unpaired surrogates. `is_storable`: all numbers can be stored.

    Raises:
        Unreadable: the value is not an object, or is nested too deep.
    """
    if not isinstance(value, dict):
        raise Unreadable("is not a JSON object")
    # A walk of its own, which few bodies need: the walk below ends at MAX_ERRORS, and must not
    # miss what is nested too deep after them.
    if count_brackets(raw) > DEPTH_LIMIT and measure_depth(value) > DEPTH_LIMIT:
        raise Unreadable(TOO_DEEP)
    errors = find_member_errors(value, raw, mark, strict=strict)
    # The plain case first: creating nodes takes as long as the parser.
    if not is_storable and not _SUPPORTED_TYPES.issuperset(map(type, value.values())):
        errors.extend(islice(_find_unsupported(value), MAX_ERRORS - len(errors)))
    return errors


def find_member_errors(
    usage: dict[str, object], raw: bytes, mark: str, *, strict: bool
) -> list[ValidationError]:
    """Return the errors of the named members of a usage that was read from `raw`."""
    errors = find_marked_members(usage, mark)
    # The fast check first: most usages that get here have no error in the named members.
    if strict and not is_ordinary_usage(usage):
        errors = [*find_rule_errors(usage), *errors]
        if not errors and type(usage["patientId"]) not in _EXACT and not is_integer_as_sent(raw):
            errors = [ValidationError("/patientId", PATIENT_ID_RULE)]
    return errors


class _Node(NamedTuple):
    """A value and its path. Only an error makes a pointer of it; most values need none."""

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


def _find_unsupported(usage: object) -> Iterator[ValidationError]:
    stack = [_Node(None, "", usage)]
    while stack:
        node = stack.pop()
        value = node.value
        if type(value) is dict:
            members: Any = value.values()
        elif type(value) is list:
            members = value
        else:
            if isinstance(value, _UnsupportedNumber):
                yield ValidationError(node.pointer(), value.reason)
            continue
        # Most containers hold only these types, and a set finds that out at the speed of C.
        if not _SUPPORTED_TYPES.issuperset(map(type, members)):
            named: Any = value.items() if type(value) is dict else enumerate(members)
            nodes = [_Node(node, n, m) for n, m in named if m and type(m) not in _SUPPORTED_TYPES]
            stack += nodes[::-1]  # so that the first is popped first


def extend_pointer(pointer: str, name: str) -> str:
    """Return a JSON pointer (RFC 6901) with one more name, or unchanged if that is not possible."""
    longer = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
    try:
        size = len(render(longer)) - 2  # without the quotes
    except UnicodeEncodeError:
        return pointer
    return longer if size <= MAX_POINTER_BYTES else pointer


def _parse_integer(digits: str) -> int | _UnsupportedNumber:
    # Without `int` for more digits: its time grows with their square.
    if len(digits.lstrip("-")) > MIN_LONG_INTEGER_DIGITS:
        return _TOO_LARGE
    value = int(digits)
    return value if abs(value) <= _MAX_INTEGER else _TOO_LARGE


def _parse_float(text: str) -> float | msgspec.Raw | _UnsupportedNumber:
    try:
        return parse_number(text)
    except ValueError:
        return _TOO_LARGE


def _refuse_constant(_name: str) -> None:
    raise NotJson("is not JSON: NaN and Infinity are not numbers in it")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_FLOAT_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_parse_float)
_LONG_INTEGER_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_parse_float, parse_int=_parse_integer
)


def _choose_decoder(numbers: Numbers) -> json.JSONDecoder:
    """Return the fastest decoder that keeps the values: a Python call for each number is slow."""
    if numbers.may_be_long_integers:
        return _LONG_INTEGER_DECODER
    return _FLOAT_DECODER if numbers.may_exceed_doubles else _DECODER
