"""The quick reading of a JSON array of ordinary usages: a piece at a time, each parsed as a whole.

A piece ends where the next usage seems to begin as the first one did. If that was inside of a
string or of a usage, the piece is no JSON, and the thorough way in `batch` begins at the front. If
every piece is an array of usages, then so is the whole, and of the same usages: between two values
there is one comma.
"""

from busyapi.decode.incremental import Incremental
from busyapi.decode.json_line import DEPTH_LIMIT, SHALLOW_BYTES, parse, render_all
from busyapi.decode.limits import count_brackets, max_containers, max_containers_in_batch
from busyapi.decode.validation import is_object, is_usage

_MAX_FIRST_NAME_BYTES = 64
_SEPARATORS = (b"},", b"}, ", b"},\n")
"""What encoders write between two usages, before what the first one begins with."""


def decode_array_fast(
    raw: bytes, max_items: int, max_piece_bytes: int, *, strict: bool
) -> Incremental[list[bytes] | None]:
    """Return the lines of an array of up to `max_items` usages; None: it takes a closer look.

    A piece has up to `max_piece_bytes` bytes, so that no usage in it has more.
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
        brackets_here = count_brackets(piece)
        found = decode_items_fast(piece, brackets_here, strict=strict)
        if not found or len(lines) + len(found) > max_items:
            return None
        lines += found
        brackets += brackets_here
        at = stop + 1  # behind the comma, or the closing bracket
    # Less, where the last comma has nothing behind it.
    whole = at == end + 1 and brackets <= max_containers_in_batch(len(raw), len(lines))
    return lines if whole else None


def _find_last_item_end(text: bytes, head: bytes, at: int, longest: int) -> int:
    """Return where the last usage that seems to end in a stretch does; its begin if none does."""
    for between in _SEPARATORS:
        found = text.rfind(between + head, at, longest)
        if found >= 0:
            return found + 1
    return at


def decode_items_fast(items: bytes, brackets: int, *, strict: bool) -> list[bytes] | None:
    """Return the lines of ordinary usages with commas between; None: they take a closer look."""
    # Their own brackets included: an ordinary usage is longer than eight bytes.
    if brackets > max_containers(len(items)):
        return None
    try:
        usages = parse(b"[%b]" % items)
        if all(map(is_usage if strict else is_object, usages)):
            lines = render_all(usages)
            # Each has one bracket; the others are what one of them could be deep or dense with.
            if brackets <= len(lines) + DEPTH_LIMIT or not any(map(_has_many_brackets, lines)):
                return lines
    except (ValueError, RecursionError):
        pass
    return None


def _has_many_brackets(line: bytes) -> bool:
    return len(line) > SHALLOW_BYTES and count_brackets(line) > DEPTH_LIMIT
