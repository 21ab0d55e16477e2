r"""Unpaired surrogates: an escape such as `\ud83d` without its other half is not a character.

A device sends one if it cuts a text in the middle of a character, because JavaScript counts halves.
UTF-8 has no bytes for it, and many readers cannot parse its escape. The usage is right about
everything else, so a free member gets U+FFFD in its place, as every encoder of UTF-8 writes it
(WHATWG Encoding; `toWellFormed` in ECMAScript). The text of `patientId` and `medication` is never
changed: two patients could become one.
"""

import re

from busyapi.decode.incremental import Incremental
from busyapi.decode.json_line import parse, render
from busyapi.errors import ValidationError

_REPLACEMENT = "\ufffd".encode()
_STEP_SURROGATES = 1_000
"""Unpaired surrogates that are replaced without a break: about 0.5 ms."""
_NAMED = ("patientId", "medication")
DETAIL = "holds an unpaired surrogate, which is not a character"

# U+FDD0 to U+FDEF are noncharacters: no text needs them.
_MARKS = tuple((chr(n), b"\\u%04x" % n, chr(n).encode()) for n in range(0xFDD0, 0xFDF0))

# Matches everything up to the next unpaired surrogate, from the end of the one before. `search`
# would begin again inside an escape, and take quadratic time. A pair is `\uD8…` to `\uDB…`, then
# `\uDC…` to `\uDF…`.
_match_unpaired = re.compile(
    rb"""((?:[^\\]++ | \\[^u] | \\u(?![dD][89a-fA-F])
      | \\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2} )*+)
      \\u[dD][89a-fA-F][0-9a-fA-F]{2}""",
    re.DOTALL | re.VERBOSE,
).match


def may_hold_surrogates(raw: bytes) -> bool:
    """Return whether JSON has an escape of a surrogate, paired or not."""
    return b"\\ud" in raw or b"\\uD" in raw


def mark_unpaired(raw: bytes) -> Incremental[tuple[bytes, str]]:
    """Return JSON with a mark for each unpaired surrogate, and the mark, in steps.

    The mark is a character that the JSON does not have, and its escape is as long as that of a
    surrogate, so positions stay the same. It is "" if there is no unpaired surrogate.
    """
    pieces: list[bytes] = []
    end = 0
    mark = _choose_mark(raw)
    escape = b"\\u%04x" % ord(mark)
    while match := _match_unpaired(raw, end):
        pieces += (match[1], escape)
        end = match.end()
        if len(pieces) % (2 * _STEP_SURROGATES) == 0:
            yield
    if not pieces:
        return raw, ""
    return b"".join((*pieces, raw[end:])), mark


def _choose_mark(raw: bytes) -> str:
    # If a body has all of them, the last one is replaced too.
    lower = raw.lower()
    for mark, escape, encoded in _MARKS:
        if escape not in lower and encoded not in raw:
            return mark
    return _MARKS[-1][0]


def find_marked_members(usage: dict[str, object], mark: str) -> list[ValidationError]:
    """Return an error for each named member that had an unpaired surrogate."""
    if not mark:
        return []
    return [
        ValidationError(f"/{name}", DETAIL)
        for name in _NAMED
        if type(text := usage.get(name)) is str and mark in text
    ]


def replace_marks(line: bytes, mark: str) -> bytes:
    """Return a line with U+FFFD in place of each mark."""
    if not mark:
        return line
    has_replacement = _REPLACEMENT in line
    line = line.replace(mark.encode(), _REPLACEMENT)
    # Two names of an object may have become one. The last one counts, as for any repeated name.
    return render(parse(line)) if has_replacement else line
