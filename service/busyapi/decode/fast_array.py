"""The fast decoder for a JSON array of ordinary usages: piece by piece, each parsed in one call.

A piece ends where the next usage seems to begin in the same way as the first one. If that place is
inside a string or a usage, the piece is not JSON, and the full parser in `batch` starts from the
beginning. If every piece is a list of usages, the array is the list of the same usages, because
one comma separates two values.
"""

from typing import Any

from busyapi.decode.incremental import Incremental, run_to_completion
from busyapi.decode.json_line import (
    DEPTH_LIMIT,
    SHALLOW_BYTES,
    has_few_slow_numbers,
    parse,
    parse_doubles,
    render_all,
)
from busyapi.decode.limits import (
    LONG_BYTES,
    MAX_STEP_BYTES,
    Numbers,
    count_brackets,
    max_containers,
    max_containers_in_batch,
    scan_numbers,
)
from busyapi.decode.validation import is_object, is_ordinary_usage

_MAX_FIRST_NAME_BYTES = 64
_MIN_USAGE_BYTES = 48
"""Bytes of the shortest usage of an ordinary batch."""
_SEPARATORS = (b"},", b"}, ", b"},\n")
"""What encoders write between two usages, in front of the bytes that a usage begins with."""


def decode_array_fast(
    raw: bytes,
    max_items: int,
    max_piece_bytes: int,
    *,
    strict: bool,
    has_plain_numbers: bool = False,
) -> Incremental[list[bytes] | None]:
    """Return the lines of an array of up to `max_items` usages; None if it needs the full parser.

    A piece has up to `max_piece_bytes` bytes, so no usage in it is larger. `has_plain_numbers`:
    with any number that `limits.Numbers` counts, it needs the full parser.
    """
    text = raw.strip(b" \t\r\n")
    at, end = 1, len(text) - 1
    if text[:1] != b"[" or text[-1:] != b"]":
        return None
    lines: list[bytes] = []
    brackets, head = 0, text[1 : text.find(b":", 1, _MAX_FIRST_NAME_BYTES) + 1]
    while at < end:
        if lines:
            yield
        stop = (
            end
            if end - at <= max_piece_bytes
            else _find_last_item_end(text, head, at, at + max_piece_bytes)
        )
        piece = text[at:stop]
        piece_brackets = count_brackets(piece)
        piece_lines = decode_items_fast(
            piece, piece_brackets, strict=strict, has_plain_numbers=has_plain_numbers
        )
        if not piece_lines or len(lines) + len(piece_lines) > max_items:
            return None
        lines += piece_lines
        brackets += piece_brackets
        at = stop + 1  # after the comma, or the closing bracket
    # `at` is smaller if nothing follows the last comma.
    complete = at == end + 1 and brackets <= max_containers_in_batch(len(raw), len(lines))
    return lines if complete else None


def decode_flat_array(
    raw: bytes, max_items: int, max_item_bytes: int, *, strict: bool
) -> list[bytes] | None:
    """Return the lines of an array of usages without objects or arrays in them, in one step.

    None if it needs `decode_batch`, which spreads what takes long over several steps.
    """
    braces = raw.count(b"{")
    if len(raw) > MAX_STEP_BYTES or braces > len(raw) // _MIN_USAGE_BYTES or raw.count(b"[") > 1:
        return None
    max_bytes = min(MAX_STEP_BYTES, max_item_bytes)
    lines = run_to_completion(
        decode_array_fast(raw, max_items, max_bytes, strict=strict, has_plain_numbers=True)
    )
    return lines if lines and len(lines) == braces else None


def _find_last_item_end(text: bytes, head: bytes, start: int, end: int) -> int:
    """Return where the last usage between two positions seems to end, or `start`."""
    for separator in _SEPARATORS:
        position = text.rfind(separator + head, start, end)
        if position >= 0:
            return position + 1
    return start


def decode_items_fast(
    items: bytes, brackets: int, *, strict: bool, has_plain_numbers: bool = False
) -> list[bytes] | None:
    """Return the lines of ordinary usages between commas; None if they need the full parser."""
    numbers = scan_numbers(items)
    if has_plain_numbers and (numbers.slow or numbers.exponents):
        return None
    usages = parse_items(items, brackets, numbers)
    if usages is None or not all(map(is_ordinary_usage if strict else is_object, usages)):
        return None
    return render_items(usages, brackets)


def parse_items(items: bytes, brackets: int, numbers: Numbers) -> list[Any] | None:
    """Return the values between commas; None if they need the full parser."""
    # This counts the usages' own brackets too: an ordinary usage is longer than eight bytes.
    if brackets > max_containers(len(items)) or numbers.excess or numbers.may_be_long_integers:
        return None
    # Its usages one by one, with pauses between them, if it has more slow numbers than are fast.
    if len(items) > LONG_BYTES and not has_few_slow_numbers(len(items), numbers.slow):
        return None
    try:
        values: list[Any] = (parse if numbers.may_exceed_doubles else parse_doubles)(
            b"[%b]" % items
        )
    except (ValueError, RecursionError):
        return None
    return values


def render_items(usages: list[Any], brackets: int) -> list[bytes] | None:
    """Return the lines of usages; None if one of them may be too deep or too dense."""
    try:
        lines = render_all(usages)
    except (ValueError, RecursionError):
        return None
    # Each usage has one bracket. Only the others can make one of them deep or dense.
    if brackets <= len(lines) + DEPTH_LIMIT or not any(map(_has_many_brackets, lines)):
        return lines
    return None


def _has_many_brackets(line: bytes) -> bool:
    return len(line) > SHALLOW_BYTES and count_brackets(line) > DEPTH_LIMIT
