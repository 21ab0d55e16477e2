"""Limits on what a body can cost, checked on its bytes before they are parsed.

Brackets cost more than other bytes: two of them are a list of 56 bytes. So the size of a body
limits how many objects and arrays it may hold. An ordinary usage is far below this limit. Without
it, a body of brackets alone would cost ten times as much as an ordinary body of its size.
"""

import re
from typing import NamedTuple

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

MAX_LARGE_EXPONENTS = 1024
"""Numbers with an exponent of three digits that a usage of more than LONG_BYTES may hold. Reading
one takes 0.4 µs, ten times as long as other numbers of its size."""

MAX_DIGITS = 500
"""Digits in a row that a number in a usage of more than LONG_BYTES may have. The time to read and
write an integer grows with the square of its digits: 0.3 ms for 4,300 of them."""

TOO_MANY_EXPONENTS = (
    f"is larger than {LONG_BYTES} bytes and holds more than {MAX_LARGE_EXPONENTS} numbers with an"
    " exponent of three digits"
)
TOO_MANY_DIGITS = (
    f"is larger than {LONG_BYTES} bytes and holds a number with more than {MAX_DIGITS} digits in"
    " a row"
)

TOO_DENSE = "holds too many objects and arrays for its size"

_DIGITS = bytes.maketrans(b"E0123456789", b"e0000000000")
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

    large_exponents: int
    """Exponents of three digits or more."""
    has_many_digits: bool

    @property
    def are_plain(self) -> bool:
        """Return whether all of them are fast to read."""
        return not (self.large_exponents or self.has_many_digits)

    @property
    def excess(self) -> str:
        """Return which limit of a long usage they exceed, as an error's text, or ""."""
        if self.large_exponents > MAX_LARGE_EXPONENTS:
            return TOO_MANY_EXPONENTS
        return TOO_MANY_DIGITS if self.has_many_digits else ""


def scan_numbers(raw: bytes) -> Numbers:
    """Return what the numbers are at most: what looks like one inside a string counts too."""
    marked = raw.translate(_DIGITS, b"+-")
    return Numbers(marked.count(b"0e000"), _has_many_digits(marked))


def _has_many_digits(marked: bytes) -> bool:
    at = marked.find(_MANY_DIGITS)
    while at >= 0:
        digits = marked[at : at + MAX_DIGITS + 1]
        count = len(digits) - len(digits.lstrip(b"0"))
        if count > MAX_DIGITS:
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
