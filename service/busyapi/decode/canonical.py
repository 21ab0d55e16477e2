"""The usage that most devices send: the three members alone, plain, which is its own line.

Strict validation accepts every match, and `json_line.render` would return the same bytes: compact
JSON, in ASCII, text without escapes, no member twice. Its time is plausible. So one pattern takes
the place of parsing, checking and rendering, at half of their time. Any other usage is decoded in
the general way.
"""

import re

from busyapi.decode.timestamp import PLAIN_INTEGER, make_plain_pattern
from busyapi.decode.validation import MAX_MEDICATION_LENGTH, MAX_PATIENT_ID_LENGTH

_CHARACTER = r"[ !#-\[\]-~]"
"""Printable ASCII without quotation mark and backslash."""
_INTEGER = "(?:-?[1-9][0-9]{0,14}+|0)"
"""Within the limits of a patient id. With more digits it may be beyond them."""


def _text(longest: int) -> str:
    return f'"{_CHARACTER}{{1,{longest}}}+"'


def _members_in_any_order(*members: str) -> str:
    if len(members) == 1:
        return members[0]
    orders = (
        f"{first},{_members_in_any_order(*(other for other in members if other != first))}"
        for first in members
    )
    return f"(?>{'|'.join(orders)})"


_MEMBERS = _members_in_any_order(
    f'"patientId":(?:{_text(MAX_PATIENT_ID_LENGTH)}|{_INTEGER})',
    f'"timestamp":(?:"(?:{make_plain_pattern(_CHARACTER)})"|{PLAIN_INTEGER})',
    f'"medication":{_text(MAX_MEDICATION_LENGTH)}',
)

CANONICAL = re.compile(rf"\{{{_MEMBERS}\}}".encode())
match_canonical = CANONICAL.fullmatch
