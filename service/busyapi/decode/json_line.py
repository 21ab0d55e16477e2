"""JSON to values, and values to one canonical line, with msgspec.

A line is compact JSON in UTF-8. Its members are in the order in which they were first sent; of a
repeated member the last value counts, as in JSON.parse. Newlines inside strings are escaped.

A number keeps its value. An integer keeps its digits. Any other number is the double that it
denotes, unless it may say more than a double: with more than MAX_DOUBLE_DIGITS digits, or below
the normal range of doubles, it keeps its text. What is beyond the range of a double is refused,
because many readers cannot parse it.

msgspec parses into plain values here, never into a typed struct: a struct skips unknown members,
and with them invalid UTF-8 and numbers beyond a double. Plain values make it read everything. It
raises a ValueError or, for deep nesting, a RecursionError.
"""

import sys
from collections.abc import Callable
from typing import Any

import msgspec

MAX_DOUBLE_DIGITS = 18
"""Digits of a number, zeros at its start included, of which a double keeps all that count."""
_MIN_NORMAL, _MAX_DOUBLE = sys.float_info.min, sys.float_info.max
_ALWAYS_DOUBLE_CHARACTERS = 4
"""A number of so few characters is within the normal range of doubles, or 0."""

DEPTH_LIMIT = 60
"""Levels of objects and arrays; the usage itself is the first. Of the common parsers the one with
the lowest limit (System.Text.Json) allows 64, and the archive and the API add one level."""

SHALLOW_BYTES = 2 * DEPTH_LIMIT
"""JSON that is nested deeper than the limit has more bytes than this: two brackets a level."""

_encoder = msgspec.json.Encoder()


def parse_number(text: str) -> float | msgspec.Raw:
    """Return the value of a number that is not an integer, or its text if it may say more.

    Raises:
        ValueError: the number is beyond a double. The message does not contain it.
    """
    # The parsers call this for each float, so the usual ones come first, without further calls.
    value = float(text)
    if len(text) <= _ALWAYS_DOUBLE_CHARACTERS:
        return value
    # Such a text has at most MAX_DOUBLE_DIGITS digits, because it has a point or an exponent.
    is_short = len(text) < MAX_DOUBLE_DIGITS + 2
    if is_short and (_MIN_NORMAL <= value <= _MAX_DOUBLE or -_MAX_DOUBLE <= value <= -_MIN_NORMAL):
        return value
    if not -_MAX_DOUBLE <= value <= _MAX_DOUBLE:
        raise ValueError("the number is beyond a double")
    if is_short and not ("e" in text or "E" in text):
        return value
    digits, _, exponent = text.lower().partition("e")
    is_double = len(digits.replace("-", "").replace(".", "")) <= MAX_DOUBLE_DIGITS
    return value if is_double and len(exponent.lstrip("+-")) <= 2 else msgspec.Raw(text)  # noqa: PLR2004 - e99


parse: Callable[[bytes], Any] = msgspec.json.Decoder(float_hook=parse_number).decode
"""Takes 0.3 µs for each float, whatever it is."""
parse_doubles: Callable[[bytes], Any] = msgspec.json.Decoder().decode
"""Ten times as fast, for JSON without `limits.Numbers.may_exceed_doubles`."""
_BYTES_PER_SLOW_NUMBER = 512
"""With fewer of them, all together cost less than the rest of the body, however slow they are."""
render: Callable[[Any], bytes] = _encoder.encode


def has_few_slow_numbers(size: int, slow_numbers: int) -> bool:
    """Return whether JSON of this size has few of the numbers that `limits.Numbers` calls slow."""
    return slow_numbers <= size // _BYTES_PER_SLOW_NUMBER


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
