"""Limits on what a body can cost, checked on its bytes before they are parsed.

Brackets cost more than other bytes: two of them are a list of 56 bytes. So the size of a body
limits how many objects and arrays it may hold. An ordinary usage is far below this limit. Without
it, a body of brackets alone would cost ten times as much as an ordinary body of its size.
"""

import re
import sys
from typing import NamedTuple

from busyapi.decode.json_line import MAX_DOUBLE_DIGITS

MAX_STEP_BYTES = 32_768
"""Bytes that are parsed or decompressed without a break. The worst body of this size takes about
5 ms. A longer body is read in steps, and the process serves other requests between them."""

FREE_CONTAINERS = 256
"""Objects and arrays that a body of any size may hold, not counting the usages themselves."""

FREE_CONTAINERS_PER_USAGE = 16
"""Further objects and arrays that a batch may hold for each of its usages."""

BYTES_PER_CONTAINER = 8
"""Bytes of body that each further object or array needs."""

LONG_BYTES = 8_192
"""Bytes that the full parser reads, without a break: up to 1 ms. `long_usage` reads a longer usage
in steps."""

SLOW_DIGITS = 20
MAX_SLOW_NUMBERS = 128
"""Numbers with an exponent of three digits, or of SLOW_DIGITS, that a usage of more than LONG_BYTES
may hold. msgspec takes up to 10 µs for one near the limits of a double, and 3 µs for one of 20
digits halfway between two doubles; 20 ns for others, or 0.3 µs with an exponent of two digits."""

MAX_EXPONENTS = 4096
"""Numbers with an exponent of two digits that such a usage may hold."""

MAX_KEPT_FRACTIONS = 4096
"""Fractions and exponents of such a usage if one of its numbers may exceed doubles: `parse_number`
reads each of them, in 0.25 µs, and all of them in one step."""

MAX_DIGITS = 500
"""Digits that a number in a usage of more than LONG_BYTES may have. The time to read and
write an integer grows with the square of its digits: 0.3 ms for 4,300 of them."""

TOO_MANY_SLOW_NUMBERS = (
    f"is larger than {LONG_BYTES} bytes and holds more than {MAX_SLOW_NUMBERS} numbers with an"
    f" exponent of three digits, or of {SLOW_DIGITS} digits, or more than {MAX_EXPONENTS} with an"
    " exponent of two digits"
)
TOO_MANY_KEPT_FRACTIONS = (
    f"is larger than {LONG_BYTES} bytes and holds more than {MAX_KEPT_FRACTIONS} fractions and"
    " exponents beside a number that may exceed a double"
)
TOO_MANY_DIGITS = (
    f"is larger than {LONG_BYTES} bytes and holds a number with more than {MAX_DIGITS} digits"
)

TOO_DENSE = "holds too many objects and arrays for its size"

EXACT_DIGITS = MAX_DOUBLE_DIGITS + 1
MIN_LONG_INTEGER_DIGITS = len(str(int(sys.float_info.max)))
"""Digits from which on an integer may be beyond the range of a double."""
_MAX_INTEGER = b"%d" % int(sys.float_info.max)

_DIGITS = bytes.maketrans(b"E0123456789", b"e0000000000")
_SLOW_DIGITS = b"0" * SLOW_DIGITS
_EXACT_DIGITS = b"0" * EXACT_DIGITS
_LONG_INTEGER = re.compile(
    rb"(?<![0-9.eE+])(?<![eE]-)[0-9]{%d,}+(?![.eE])" % MIN_LONG_INTEGER_DIGITS
)
_MANY_DIGITS = b"0" * 64  # of 100 or more, Python's search takes quadratic time in crafted bodies

# A string without an end matches to the end of the body. Otherwise the search would start again at
# every quote inside it, and a body of escaped quotes would take quadratic time.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def count_brackets(raw: bytes) -> int:
    """Return the number of opening brackets, also inside strings: at least that of containers."""
    # A search is ten times as fast as a count, and most usages have no array.
    return raw.count(b"{") + (raw.count(b"[") if b"[" in raw else 0)


def count_containers(raw: bytes) -> int:
    """Return the number of opening brackets outside strings."""
    return count_brackets(strip_strings(raw))


class Numbers(NamedTuple):
    """What makes the numbers of some JSON slow to read."""

    slow: int
    """Exponents of three digits or more, and 20 digits."""
    exponents: int
    """Exponents of two digits or more."""
    may_exceed_doubles: bool
    """Some may say more than a double: exponents of three digits, or EXACT_DIGITS."""
    kept_fractions: int
    """Points and exponents if so, otherwise 0."""
    may_be_long_integers: bool
    """Some may be integers beyond the range of a double."""
    has_many_digits: bool

    @property
    def excess(self) -> str:
        """Return which limit of a long usage they exceed, as an error's text, or ""."""
        if self.has_many_digits:
            return TOO_MANY_DIGITS
        if self.slow > MAX_SLOW_NUMBERS or self.exponents > MAX_EXPONENTS:
            return TOO_MANY_SLOW_NUMBERS
        return TOO_MANY_KEPT_FRACTIONS if self.kept_fractions > MAX_KEPT_FRACTIONS else ""


def scan_numbers(raw: bytes) -> Numbers:
    """Return what the numbers are at most: what looks like one inside a string counts too."""
    marked = raw.translate(_DIGITS, b"+-.")
    slow_exponents = marked.count(b"0e000")
    has_exact = _EXACT_DIGITS in marked
    has_long = has_exact and _has_digits(marked, MIN_LONG_INTEGER_DIGITS)
    may_exceed = bool(slow_exponents) or has_exact
    return Numbers(
        slow=slow_exponents + (marked.count(_SLOW_DIGITS) if has_exact else 0),
        exponents=marked.count(b"0e00"),
        may_exceed_doubles=may_exceed,
        kept_fractions=raw.count(b".") + marked.count(b"0e0") if may_exceed else 0,
        may_be_long_integers=has_long,
        has_many_digits=has_long and _has_digits(marked, MAX_DIGITS + 1),
    )


def may_hold_long_integer(raw: bytes) -> bool:
    """Return whether an integer beyond the range of a double is possible, also inside a string."""
    return _has_digits(raw.translate(_DIGITS, b"+-."), MIN_LONG_INTEGER_DIGITS)


def holds_long_integer(stripped: bytes) -> bool:
    """Return whether JSON without text in its strings has an integer beyond a double."""
    return any(
        len(match[0]) > MIN_LONG_INTEGER_DIGITS or match[0] > _MAX_INTEGER
        for match in _LONG_INTEGER.finditer(stripped)
    )


def _has_digits(marked: bytes, minimum: int) -> bool:
    at = marked.find(_MANY_DIGITS)
    while at >= 0:
        digits = marked[at : at + minimum]
        count = len(digits) - len(digits.lstrip(b"0"))
        if count == minimum:
            return True
        at = marked.find(_MANY_DIGITS, at + count)
    return False


def strip_strings(raw: bytes) -> bytes:
    """Return JSON with every string empty."""
    return _STRING.sub(b'""', raw)


def max_containers(size: int) -> int:
    """Return how many objects and arrays a body may hold, not counting its usages."""
    return FREE_CONTAINERS + size // BYTES_PER_CONTAINER


def max_containers_in_batch(size: int, usages: int) -> int:
    """Return how many objects and arrays a batch may hold, including its usages."""
    return usages * (1 + FREE_CONTAINERS_PER_USAGE) + max_containers(size)


def is_too_dense(raw: bytes) -> bool:
    """Return whether one usage holds too many objects and arrays for its size."""
    limit = 1 + max_containers(len(raw))
    return count_brackets(raw) > limit and count_containers(raw) > limit
