"""The instant of each spelling of a timestamp, and which ones are plausible."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busyapi.decode.timestamp import (
    compute_unix_ms,
    is_plausible,
    is_timestamp,
    make_plain_pattern,
    match_plain_timestamp,
)
from tests.unit.decode.test_timestamp import format_date_string, moments

# Each spelling with its offset from 2016-11-01T14:11:51Z, in milliseconds.
SPELLINGS: dict[object, int] = {
    "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)": 0,
    "Tue Nov 1 2016 09:11:51 GMT-0500 (CDT)": 0,
    "Tue Nov 1 2016 14:11:51 GMT+0000": 0,
    "Wed Nov 02 2016 00:26:51 GMT+1015": 0,
    "Tue, 01 Nov 2016 14:11:51 GMT": 0,
    "Tue, 1 Nov 2016 14:11:51 GMT": 0,
    "2016-11-01T14:11:51Z": 0,
    "2016-11-01t14:11:51z": 0,
    "2016-11-01 14:11:51Z": 0,
    "2016-11-01T09:11:51-05:00": 0,
    "2016-11-01T09:11:51-0500": 0,
    "2016-11-01 09:11:51-0500": 0,
    "2016-11-02T00:26:51+1015": 0,
    "2016-11-01T14:11:51.25Z": 250,
    "2016-11-01 09:11:51.2509-0500": 250,
    "2016-11-01T09:11:51-05:00[America/Chicago]": 0,
    "2016-11-01T09:11:51-0500[America/Argentina/Buenos_Aires]": 0,
    "2016-11-01T14:11:51Z[Etc/GMT+5]": 0,  # the offset counts, not the zone
    "2016-11-01T09:11:51-05:00[-05:00]": 0,
    "2016-11-01 09:11:51.001-05:00[America/Chicago][u-ca=gregory][x=a-b1]": 1,
    "2016-11-01T14:11:51Z[u-ca=hebrew]": 0,
    "2016-11-01T14:10:60Z": -51_000,
    "Tue, 1 Nov 2016 14:10:60 GMT": -51_000,
    1478009511000: 0,
}


@pytest.mark.parametrize("value", SPELLINGS)
def test_each_spelling_has_its_instant(value: object) -> None:
    assert compute_unix_ms(value) == 1478009511000 + SPELLINGS[value]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999Z", -1),
        ("1990-12-31T15:59:60-08:00", 662_688_000_000),  # RFC 3339, section 5.8
        ("0000-01-01T00:00:00Z", -62_167_219_200_000),
        ("0000-02-29T00:00:00Z", -62_162_121_600_000),
        ("9999-12-31T23:59:60Z", 253_402_300_800_000),
        (-1, -1),
        ("2016-11-31T14:11:51Z", None),
        (True, None),
    ],
)
def test_instants_at_the_limits(value: object, expected: int | None) -> None:
    assert compute_unix_ms(value) == expected


@given(moment=moments, blank=st.booleans())
def test_instant_equals_that_of_the_standard_library(moment: datetime, *, blank: bool) -> None:
    whole = moment.replace(microsecond=0)
    milliseconds = (whole - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert compute_unix_ms(format_date_string(moment)) == milliseconds
    assert compute_unix_ms(whole.isoformat(" " if blank else "T")) == milliseconds
    after = moment.microsecond // 1000
    assert compute_unix_ms(moment.isoformat(timespec="microseconds")) == milliseconds + after


@pytest.mark.parametrize(
    ("value", "plausible"),
    [
        ("2000-01-01T00:00:00Z", True),
        ("2099-12-31T23:59:59-05:00", True),  # the year counts as it is written
        ("Tue Nov 1 2016 09:11:51 GMT-0500", True),
        ("Tue, 1 Nov 2016 14:11:51 GMT", True),
        ("1999-12-31T23:59:59Z", False),
        ("2100-01-01T00:00:00Z", False),
        ("Thu Jan 1 1970 00:00:12 GMT+0000", False),
        ("Thu, 01 Jan 1970 00:00:12 GMT", False),
        (1478009511000, True),
        (946_684_800_000, True),
        (946_684_799_999, False),
        (4_102_444_799_999, True),
        (4_102_444_800_000, False),
        (1478009511, False),  # seconds
        (1478009511000000, False),  # microseconds
        (0, False),
        (-1478009511000, False),
    ],
)
def test_a_time_outside_of_this_century_is_not_plausible(value: object, *, plausible: bool) -> None:
    assert is_timestamp(value)
    assert is_plausible(value) is plausible
    if not plausible:
        assert not (isinstance(value, str) and match_plain_timestamp(value))


@given(st.from_regex(make_plain_pattern(), fullmatch=True))
def test_a_plain_timestamp_is_plausible(text: str) -> None:
    assert is_timestamp(text)
    assert is_plausible(text)
