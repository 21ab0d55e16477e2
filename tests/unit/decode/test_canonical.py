"""The pattern of plain usages: what it matches is a usage, and its own line."""

import json
from itertools import permutations

import pytest
from hypothesis import given, strategies

from busyapi.decode.canonical import CANONICAL, match_canonical
from busyapi.decode.json_line import parse, render
from busyapi.decode.validation import is_ordinary_usage

PLAIN = {"patientId": "100", "timestamp": "2016-11-01T09:11:51Z", "medication": "Albuterol"}
DATE_STRING = "Tue Nov 01 2016 09:11:51 GMT-0500 (Central Standard Time (Mexico))"


@given(strategies.from_regex(CANONICAL, fullmatch=True))
def test_a_match_is_a_usage_and_its_own_line(raw: bytes) -> None:
    assert is_ordinary_usage(parse(raw))
    assert render(parse(raw)) == raw


@pytest.mark.parametrize("names", list(permutations(PLAIN)))
def test_members_in_any_order_match(names: tuple[str, ...]) -> None:
    assert match_canonical(encode({name: PLAIN[name] for name in names}))


@pytest.mark.parametrize(
    "change",
    [
        {"patientId": 1},
        {"patientId": -(10**15) + 1},
        {"patientId": "x" * 128},
        {"timestamp": 10**12},
        {"timestamp": 1_478_009_511_000},
        {"timestamp": DATE_STRING},
        {"medication": "x" * 256},
    ],
)
def test_plain_members_match(change: dict[str, object]) -> None:
    assert match_canonical(encode(PLAIN | change))


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps(PLAIN).encode(),  # with blanks
        *(
            json.dumps(PLAIN | change, separators=(",", ":"), ensure_ascii=False).encode()
            for change in (
                {"patientId": ""},
                {"patientId": "x" * 129},
                {"patientId": "é"},
                {"patientId": 'a"b'},
                {"patientId": "a\\b"},
                {"patientId": "\x7f"},
                {"patientId": 10**15},
                {"patientId": 1.0},
                {"patientId": None},
                {"timestamp": 0},
                {"timestamp": 10**12 - 1},
                {"timestamp": 4 * 10**12},
                {"timestamp": -(10**12)},
                {"timestamp": 1_478_009_511_000_000},
                {"timestamp": "1970-01-01T00:00:12Z"},
                {"timestamp": "2016-11-01 09:11:51Z"},
                {"timestamp": "2016-11-31T09:11:51Z"},
                {"timestamp": "2016-02-29T09:11:51Z"},
                {"timestamp": DATE_STRING.replace("Mexico", "México")},
                {"medication": "x" * 257},
                {"device": "x"},
            )
        ),
        json.dumps({"patientId": "1", "medication": "x"}).encode(),
        b'{"patientId":"1","patientId":"1","timestamp":0,"medication":"x"}',
        b'{"patientId":"1","patientId":"1","medication":"x"}',
        b'{"patientId":01,"timestamp":0,"medication":"x"}',
        b'{"patientId":-0,"timestamp":0,"medication":"x"}',
        b'{"patientId":"1","timestamp":0,"medication":"x"}\n',
        b'\xef\xbb\xbf{"patientId":"1","timestamp":0,"medication":"x"}',
    ],
)
def test_other_bytes_do_not_match(raw: bytes) -> None:
    assert not match_canonical(raw)


def encode(usage: dict[str, object]) -> bytes:
    return json.dumps(usage, separators=(",", ":")).encode()
