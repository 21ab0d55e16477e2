"""The door to msgspec: JSON to values, and values to one canonical line.

A line is compact JSON in UTF-8, members in the order they were first sent, the last of a repeated
member kept (as JSON.parse keeps it), every newline inside a string escaped.

msgspec parses into plain values here, never into a typed struct: a struct skips the members it
does not know, and with them invalid UTF-8 and numbers beyond a double. Parsed into plain values,
all of it is read. What it raises is a ValueError or, nested too deep, a RecursionError.
"""

from collections.abc import Callable
from typing import Any

import msgspec

DEPTH_LIMIT = 60
"""Levels of objects and arrays, the usage itself the first. The shallowest of the common readers
(System.Text.Json) stops at 64, and the archive and the API wrap a usage once more."""

SHALLOW_BYTES = 2 * DEPTH_LIMIT
"""JSON nested deeper than the limit has more bytes than this: two brackets a level."""

_encoder = msgspec.json.Encoder()

parse: Callable[[bytes], Any] = msgspec.json.Decoder().decode
render: Callable[[Any], bytes] = _encoder.encode


def render_all(values: list[Any]) -> list[bytes]:
    """Render each value as its line."""
    return _encoder.encode_lines(values).split(b"\n")[:-1]


_SCALARS = frozenset((str, int, float, bool, type(None)))
_CONTAINERS = frozenset((dict, list))


def measure_depth(value: object) -> int:
    """Count the levels of objects and arrays, without recursion."""
    levels, level = 0, [value] if type(value) in _CONTAINERS else []
    while level:
        levels += 1
        insides: list[Any] = [each.values() if type(each) is dict else each for each in level]
        level = [
            inner
            for inside in insides
            # Three times as fast where there is nothing to find, as in most.
            if not _SCALARS.issuperset(map(type, inside))
            for inner in inside
            if type(inner) in _CONTAINERS
        ]
    return levels
