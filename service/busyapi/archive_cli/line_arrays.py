"""Arrays of the bytes of many lines, for `line_check` and `plain_lines`.

Only these three modules import numpy.
"""

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
"""Offsets in bytes."""
Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Windows = NDArray[np.void]
"""Pieces of the same size. One is copied at once, in half the time of a row of bytes."""

_BASE, _ZERO = 10, ord("0")
_WORD_BYTES = 8


def slide(data: bytes | Bytes, size: int) -> Windows:
    """Return the window at each byte, in one array that shares the memory."""
    return np.ndarray(len(data) - size + 1, f"V{size}", data, strides=(1,))


def read_rows_of_bytes(data: Bytes, places: Places, size: int) -> Bytes:
    """Return a row of so many bytes from each place on."""
    return slide(data, size)[places].view(np.uint8).reshape(-1, size)


def has_text(data: Bytes, places: Places, text: bytes) -> Flags:
    """Return whether this text is at each place."""
    size = min(_WORD_BYTES, len(text))
    mask = (1 << 8 * size) - 1
    words = np.ndarray((len(data) - _WORD_BYTES + 1,), "<u8", data, strides=(1,))
    result = np.ones(len(places), np.bool_)
    # A word may have bytes of the one before it.
    for at in {*range(0, len(text) - size, _WORD_BYTES), len(text) - size}:
        expected = int.from_bytes(text[at : at + size], "little")
        result &= (words[places + at] & mask) == expected
    return result


def parse_numbers(texts: Bytes) -> Places | None:
    """Return the number in each row of digits; None if a byte is no digit."""
    # An array for each place of the digits, which is faster than one for each number.
    digits = np.subtract(texts.T, np.uint8(_ZERO), order="C")
    if digits.max() >= _BASE:
        return None
    powers: Places = _BASE ** np.arange(len(digits) - 1, -1, -1)
    return powers @ digits
