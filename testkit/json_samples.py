"""Unusual JSON texts, and a reference parser for them."""

import json
import math
import sys
from typing import Any, NoReturn

from hypothesis import strategies as st

from busyapi.decode.json_line import DEPTH_LIMIT

USAGE = (
    b'{"patientId":"100","timestamp":"Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",'
    b'"medication":"Albuterol"}'
)

_blank = st.sampled_from(["", "", "", " ", "\t", "\r\n", "\n  "])
_characters = st.characters(exclude_characters='"\\', exclude_categories=["Cc", "Cs"])
_escapes = st.sampled_from(
    ['\\"', "\\\\", "\\/", "\\b", "\\n", "\\r", "\\t", "\\u0000", "\\u00e9", "\\u2028", "\\uFFFF"]
)
_surrogates = st.sampled_from(["\\ud800", "\\udc00", "\\ud83d\\ude00", "\\uDBFF", "\ufeff", "\x7f"])
_pieces = st.one_of(_characters, _characters, _escapes, _surrogates)
_numbers = st.one_of(
    st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(["-0", "-0.0", "1e999", "-1e400", "1e-400", "5e-324", "1.0", "1E5", "1e23"]),
    st.sampled_from([str(2**63), str(-(2**63) - 1), str(2**64), "9" * 308, "9" * 309, "NaN"]),
    st.sampled_from(["9" * 4301, "0.1000000000000000055511151231257827"]),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)


def _text(pieces: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(pieces, max_size=6).map(lambda parts: f'"{"".join(parts)}"')


_strings = _text(_pieces)
# Few names, so that objects have duplicates.
_names = st.one_of(st.sampled_from(['"a"', '"b"', '"\\u0061"', '"patientId"', '"a/b~c"']), _strings)
_scalars = st.one_of(st.sampled_from(["true", "false", "null"]), _numbers, _strings)


@st.composite
def _container(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    if draw(st.booleans()):
        return draw(_object(inner))
    items = draw(st.lists(inner, max_size=4))
    return "[" + ",".join(draw(_blank) + item + draw(_blank) for item in items) + "]"


@st.composite
def _object(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    members = draw(st.lists(st.tuples(_names, inner), max_size=4))
    between = draw(_blank)
    return "{" + between + ",".join(f"{n}{between}:{between}{v}" for n, v in members) + "}"


values = st.recursive(_scalars, _container, max_leaves=12)
"""Texts of JSON values, and sometimes of values that only Python accepts."""

objects = st.builds(lambda left, text, right: left + text + right, _blank, _object(values), _blank)
"""Texts of JSON objects."""


@st.composite
def _broken(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(objects).encode())
    at = draw(st.integers(0, len(raw)))
    raw[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(raw)


_any_start = st.sampled_from([b"", b"\xef\xbb\xbf", b"\x0c", b"\xfe\xff"])
bodies = st.one_of(
    st.builds(lambda start, text: start + text.encode(), _any_start, objects),
    _broken(),
    values.map(str.encode),
    st.binary(max_size=40),
    st.integers(1, 2 * DEPTH_LIMIT).map(lambda n: b'{"a":' * n + b"1" + b"}" * n),
)
"""Bodies: valid, broken, too deep, and random bytes."""


class NotReadable(ValueError):
    """The reference parser rejects a body."""


def parse_reference(raw: bytes) -> Any:
    """Parse a body with Python's parser, without NaN and Infinity, which RFC 8259 excludes."""
    try:
        text = raw.decode("utf-8-sig")
        return json.loads(text, parse_constant=_reject_constant, parse_int=_parse_int)
    except (ValueError, RecursionError):
        raise NotReadable from None


def _reject_constant(_name: str) -> NoReturn:
    raise NotReadable


def _parse_int(digits: str) -> float:
    # Python's limit on digits is not a rule of JSON. Such a number is beyond a double and cannot be
    # stored, but the body is valid if a later member of the same name replaces the number.
    limit = sys.get_int_max_str_digits()
    return int(digits) if len(digits.lstrip("-")) <= limit else math.inf


def can_be_stored(value: Any) -> bool:
    """Return whether a line of UTF-8 JSON within the depth limit can store this value."""
    return _depth(value) <= DEPTH_LIMIT and all(map(_is_storable_leaf, _leaves(value)))


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in [name, *_leaves(inner)]]
    return [leaf for inner in value for leaf in _leaves(inner)] if type(value) is list else [value]


def _is_storable_leaf(leaf: Any) -> bool:
    if isinstance(leaf, float):
        return math.isfinite(leaf)
    if isinstance(leaf, int):
        return abs(leaf) <= sys.float_info.max
    return True


def has_unpaired_patient_or_medication(value: dict[str, Any]) -> bool:
    """Return whether a named text has an unpaired surrogate, which is never changed."""
    texts = [value.get("patientId"), value.get("medication")]
    return any(type(text) is str and text != replace_surrogates(text) for text in texts)


def replace_surrogates(value: Any) -> Any:
    """Return a value with U+FFFD in place of each unpaired surrogate."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {replace_surrogates(n): replace_surrogates(v) for n, v in value.items()}
    return list(map(replace_surrogates, value)) if isinstance(value, list) else value
