"""A long usage, in steps: each is one pass over its bytes, of about 2 ms or less.

Python's parser would find the place of every error, but some usages take it three times as long. So
msgspec alone reads a long usage, and what it refuses gets one error without a pointer.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from busyapi.decode.diagnose import (
    NOT_UTF8,
    TOO_DEEP,
    Unreadable,
    find_member_errors,
    is_utf8,
    make_unreadable,
)
from busyapi.decode.incremental import Incremental
from busyapi.decode.json_line import (
    DEPTH_LIMIT,
    measure_depth,
    parse,
    parse_doubles,
    render,
)
from busyapi.decode.limits import (
    LONG_BYTES,
    TOO_DENSE,
    count_brackets,
    holds_long_integer,
    is_too_dense,
    scan_numbers,
    strip_strings,
)
from busyapi.decode.split import describe_error, find_syntax_error, replace_surrogates
from busyapi.decode.surrogates import (
    mark_unpaired,
    may_hold_surrogates,
    replace_marks,
)
from busyapi.decode.validation import convert_whole_numbers
from busyapi.errors import InvalidUsage, ValidationError

NUMBER_TOO_LARGE = (
    f"is larger than {LONG_BYTES} bytes and holds a number beyond the range of a double"
)

_Parser = Callable[[bytes], Any]

_NUMBER = "number"
"""What `_try` returns for a number beyond a double."""


def read_long_usage(raw: bytes, *, strict: bool) -> Incremental[bytes]:
    """Return the line of a usage of more than LONG_BYTES.

    Raises:
        Unreadable: not JSON, not UTF-8, not an object, or nested too deep.
        InvalidUsage: it breaks rules or limits, or holds what no line can.
    """
    read = yield from _choose_parser(raw)
    yield
    if is_too_dense(raw):
        raise _make_error(raw, TOO_DENSE)
    yield
    value, mark = yield from _parse(raw, read)
    if not isinstance(value, dict):
        raise Unreadable("is not a JSON object")
    yield
    if count_brackets(raw) > DEPTH_LIMIT:
        if measure_depth(value) > DEPTH_LIMIT:
            raise Unreadable(TOO_DEEP)
        yield
    errors = find_member_errors(value, raw, mark, strict=strict)
    if errors:
        raise InvalidUsage(errors)
    if strict:
        convert_whole_numbers(value)
    return replace_marks(render(value), mark)


def _choose_parser(raw: bytes) -> Incremental[_Parser]:
    """Check the numbers, and return a parser that keeps their values."""
    numbers = scan_numbers(raw)
    if numbers.excess or numbers.may_be_long_integers:
        # What looks like a number in a string does not count.
        yield
        stripped = strip_strings(raw)
        numbers = scan_numbers(stripped)
        if numbers.excess:
            raise _make_error(raw, numbers.excess)
        if numbers.may_be_long_integers and holds_long_integer(stripped):
            raise _make_error(raw, NUMBER_TOO_LARGE)
    return parse if numbers.may_exceed_doubles else parse_doubles


def _parse(raw: bytes, read: _Parser) -> Incremental[tuple[object, str]]:
    """Return the value, and the mark in the place of unpaired surrogates."""
    reason, value = _try(raw, read)
    if reason is None:
        return value, ""
    if reason == _NUMBER:
        raise _make_error(raw, NUMBER_TOO_LARGE)
    if reason == NOT_UTF8 or not may_hold_surrogates(raw):
        raise make_unreadable(reason)
    # An unpaired surrogate has no position, and hides what else is wrong.
    yield
    marked, mark = yield from mark_unpaired(raw)
    yield
    reason, value = _try(marked, read)
    if reason == _NUMBER:
        raise _make_error(raw, NUMBER_TOO_LARGE)
    if reason is not None:
        raise make_unreadable(reason)
    return value, mark


def _try(raw: bytes, read: _Parser) -> tuple[str | None, object]:
    """Return the value, or why there is none: in words, because errors hold the payload.

    As the context of a new error, they could get into a log.
    """
    try:
        return None, read(raw)
    except UnicodeDecodeError:
        return NOT_UTF8, None
    except msgspec.ValidationError:  # of plain values, nothing else is validated
        return _NUMBER, None
    except (msgspec.DecodeError, RecursionError) as error:
        return describe_error(raw, 0, error), None


def _make_error(raw: bytes, detail: str) -> Exception:
    """Return the error of bytes that break a limit, or that are not a JSON object in UTF-8."""
    if not is_utf8(raw):
        return make_unreadable(NOT_UTF8)
    if reason := find_syntax_error(replace_surrogates(raw)):
        return make_unreadable(reason)
    if not raw.lstrip(b" \t\r\n").startswith(b"{"):
        return Unreadable("is not a JSON object")
    return InvalidUsage([ValidationError("", detail)])
