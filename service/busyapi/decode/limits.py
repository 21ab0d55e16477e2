"""Limits on what a body can cost, checked on its bytes before they are parsed.

Brackets cost more than other bytes: two of them are a list of 56 bytes. So the size of a body
limits how many objects and arrays it may hold. An ordinary usage is far below this limit. Without
it, a body of brackets alone would cost ten times as much as an ordinary body of its size.
"""

import re

MAX_STEP_BYTES = 32_768
"""Bytes that are parsed or decompressed without a break. The worst body of this size takes about
5 ms. A longer body is read in steps, and the process serves other requests between them."""

FREE_CONTAINERS = 256
"""Objects and arrays that a body of any size may hold, not counting the usages themselves."""

FREE_CONTAINERS_PER_USAGE = 16
"""Further objects and arrays that a batch may hold for each of its usages."""

BYTES_PER_CONTAINER = 8
"""Bytes of body that each further object or array needs."""

MAX_LARGE_EXPONENTS = 1024
"""Numbers with an exponent of three digits that a usage of more than LONG_BYTES may hold. Reading
one takes 0.4 µs, ten times as long as other numbers of its size."""

LONG_BYTES = 8_192
"""Bytes that the full parser reads without a break: up to 1 ms. For a longer usage, each pass over
it is one step."""

TOO_MANY_EXPONENTS = (
    f"is larger than {LONG_BYTES} bytes and holds more than {MAX_LARGE_EXPONENTS} numbers with an"
    " exponent of three digits"
)

TOO_DENSE = "holds too many objects and arrays for its size"

_DIGITS = bytes.maketrans(b"E0123456789", b"e0000000000")

# A string without an end matches to the end of the body. Otherwise the search would start again at
# every quote inside it, and a body of escaped quotes would take quadratic time.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def count_brackets(raw: bytes) -> int:
    """Return the number of opening brackets, also inside strings: at least that of containers."""
    # A search is ten times as fast as a count, and most usages have no array.
    return raw.count(b"{") + (raw.count(b"[") if b"[" in raw else 0)


def count_containers(raw: bytes) -> int:
    """Return the number of opening brackets outside strings."""
    return count_brackets(_STRING.sub(b"", raw))


def count_large_exponents(raw: bytes) -> int:
    """Return the number of exponents of three digits or more: at least that of such numbers."""
    return raw.translate(_DIGITS, b"+-").count(b"0e000")


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
