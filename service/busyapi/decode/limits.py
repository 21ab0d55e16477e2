"""Bounds on what a body can cost, checked on its bytes before they are parsed.

Brackets cost more than other bytes: two of them are a list of 56 bytes. So a body may hold only so
many objects and arrays for its size. An ordinary usage is far from this; a body of brackets alone
is not, and without the bound it would cost ten times what an ordinary body of its size costs.
"""

import re

MAX_STEP_BYTES = 32_768
"""Bytes that are parsed, or inflated, without a break. The worst body of this size takes about
5 ms, so a longer one is read in steps, and other requests are served between them."""

FREE_CONTAINERS = 256
"""Objects and arrays that a body of any size may hold, besides the usages themselves."""

FREE_CONTAINERS_PER_USAGE = 16
"""And this many for each usage of a batch."""

BYTES_PER_CONTAINER = 8
"""Each further one needs this many bytes of body."""

TOO_DENSE = "holds too many objects and arrays for its size"

# A string that never ends reaches to the end: tried again from each quote inside it, a body of
# escaped quotes would cost its square.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def count_brackets(raw: bytes) -> int:
    """Count opening brackets, those inside strings included: no fewer than the containers."""
    # To look for the first one is ten times as fast as to count, and most usages have no array.
    return raw.count(b"{") + (raw.count(b"[") if b"[" in raw else 0)


def count_containers(raw: bytes) -> int:
    """Count opening brackets outside of strings."""
    return count_brackets(_STRING.sub(b"", raw))


def max_containers(size: int) -> int:
    """Return how many objects and arrays a body of this size may hold, besides its usages."""
    return FREE_CONTAINERS + size // BYTES_PER_CONTAINER


def max_containers_in_batch(size: int, usages: int) -> int:
    """Return how many a batch of this size may hold, its usages included."""
    return usages * (1 + FREE_CONTAINERS_PER_USAGE) + max_containers(size)


def is_too_dense(raw: bytes) -> bool:
    """Say whether one usage holds too many objects and arrays for its size."""
    most = 1 + max_containers(len(raw))
    return count_brackets(raw) > most and count_containers(raw) > most
