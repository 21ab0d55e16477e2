"""A long usage, in steps: each is one pass over its bytes, of 2 ms or less whatever they are.

Python's parser would find the place of every error, but some usages take it three times as long. So
msgspec alone reads a long usage, and what it refuses gets one error without a pointer.
"""

import msgspec

from busyapi.decode.diagnose import TOO_DEEP, NotJson, Unreadable
from busyapi.decode.incremental import Incremental
from busyapi.decode.json_line import DEPTH_LIMIT, choose_parser, measure_depth, render
from busyapi.decode.limits import (
    LONG_BYTES,
    TOO_DENSE,
    count_brackets,
    is_too_dense,
    scan_numbers,
    strip_strings,
)
from busyapi.decode.split import describe_error, find_syntax_error, replace_surrogates
from busyapi.decode.validation import find_rule_errors
from busyapi.errors import InvalidUsage, ValidationError

NUMBER_TOO_LARGE = (
    f"is larger than {LONG_BYTES} bytes and holds a number beyond the range of a double"
)
UNPAIRED_SURROGATE = (
    f"is larger than {LONG_BYTES} bytes and holds an unpaired surrogate, which is not a character"
)


def read_long_usage(raw: bytes, *, strict: bool) -> Incremental[bytes]:
    """Return the line of a usage of more than LONG_BYTES.

    Raises:
        Unreadable: not JSON, not UTF-8, not an object, or nested too deep.
        InvalidUsage: it breaks rules or limits, or holds what no line can.
    """
    numbers = scan_numbers(raw)
    if numbers.excess:
        # What looks like a number in a string does not count.
        yield
        numbers = scan_numbers(strip_strings(raw))
        if numbers.excess:
            raise _make_error(raw, numbers.excess)
    yield
    if is_too_dense(raw):
        raise _make_error(raw, TOO_DENSE)
    yield
    value = _parse(raw, numbers.large_exponents)
    if not isinstance(value, dict):
        raise Unreadable("is not a JSON object")
    yield
    if count_brackets(raw) > DEPTH_LIMIT:
        if measure_depth(value) > DEPTH_LIMIT:
            raise Unreadable(TOO_DEEP)
        yield
    errors = list(find_rule_errors(value)) if strict else []
    if errors:
        raise InvalidUsage(errors)
    return render(value)


def _parse(raw: bytes, large_exponents: int) -> object:
    parse = choose_parser(len(raw), large_exponents)
    # Raise below, not in the handlers: the parser's errors hold the payload. As the context of the
    # new error, they could get into a log.
    try:
        return parse(raw)
    except UnicodeDecodeError:
        reason = "is not UTF-8"
    except msgspec.ValidationError:  # of plain values, nothing else is validated
        reason = ""
    except (msgspec.DecodeError, RecursionError) as error:
        reason = describe_error(raw, 0, error)
    if not reason:
        raise _make_error(raw, NUMBER_TOO_LARGE)
    if (scanned := replace_surrogates(raw)) != raw:
        try:
            parse(scanned)
        except (ValueError, RecursionError):
            pass
        else:
            raise InvalidUsage([ValidationError("", UNPAIRED_SURROGATE)])
    raise _make_unreadable(reason)


def _make_error(raw: bytes, detail: str) -> Exception:
    """Return the error of bytes that break a limit, or that are not a JSON object."""
    if reason := find_syntax_error(replace_surrogates(raw)):
        return _make_unreadable(reason)
    if not raw.lstrip(b" \t\r\n").startswith(b"{"):
        return Unreadable("is not a JSON object")
    return InvalidUsage([ValidationError("", detail)])


def _make_unreadable(reason: str) -> Unreadable:
    return Unreadable(reason) if reason == TOO_DEEP else NotJson(reason)
