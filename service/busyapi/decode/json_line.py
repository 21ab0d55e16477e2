"""JSON to values, and values to one canonical line, with msgspec.

A line is compact JSON in UTF-8. Its members are in the order in which they were first sent; of a
repeated member the last value counts, as in JSON.parse. Newlines inside strings are escaped.

msgspec parses into plain values here, never into a typed struct: a struct skips unknown members,
and with them invalid UTF-8 and numbers beyond a double. Plain values make it read everything. It
raises a ValueError or, for deep nesting, a RecursionError.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from busyapi.json_float import parse_float

DEPTH_LIMIT = 60
"""Levels of objects and arrays; the usage itself is the first. Of the common parsers the one with
the lowest limit (System.Text.Json) allows 64, and the archive and the API add one level."""

SHALLOW_BYTES = 2 * DEPTH_LIMIT
"""JSON that is nested deeper than the limit has more bytes than this: two brackets a level."""

_encoder = msgspec.json.Encoder()

parse: Callable[[bytes], Any] = msgspec.json.Decoder(float_hook=parse_float).decode
"""Takes 0.3 µs for each float, whatever it is."""
parse_few_slow_numbers: Callable[[bytes], Any] = msgspec.json.Decoder().decode
"""Ten times as fast, but slow for the numbers that `limits.Numbers` counts."""
_BYTES_PER_SLOW_NUMBER = 512
"""With fewer of them, all together cost less than the rest of the body, however slow they are."""
render: Callable[[Any], bytes] = _encoder.encode


def has_few_slow_numbers(size: int, slow_numbers: int) -> bool:
    """Return whether the faster parser is faster for JSON with this number of slow numbers."""
    return slow_numbers <= size // _BYTES_PER_SLOW_NUMBER


def choose_parser(size: int, slow_numbers: int) -> Callable[[bytes], Any]:
    """Return the faster parser for JSON with this number of slow numbers."""
    return parse_few_slow_numbers if has_few_slow_numbers(size, slow_numbers) else parse


def render_all(values: list[Any]) -> list[bytes]:
    """Return the line of each value."""
    return _encoder.encode_lines(values).split(b"\n")[:-1]


_SCALARS = frozenset((str, int, float, bool, type(None)))
_CONTAINERS = frozenset((dict, list))


def measure_depth(value: object) -> int:
    """Return the number of levels of objects and arrays, without recursion."""
    levels, level = 0, [value] if type(value) in _CONTAINERS else []
    while level:
        levels += 1
        groups: list[Any] = [node.values() if type(node) is dict else node for node in level]
        level = [
            member
            for members in groups
            # Most containers hold only scalars, and this check finds that out three times as fast.
            if not _SCALARS.issuperset(map(type, members))
            for member in members
            if type(member) in _CONTAINERS
        ]
    return levels
