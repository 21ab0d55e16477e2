"""Timestamps: each form, its calendar, and similar texts that are refused."""

import calendar
import time
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from busyapi.decode.timestamp import MAX_TIME_MS, is_timestamp

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

offsets = st.integers(-(23 * 60 + 59), 23 * 60 + 59).map(lambda m: timezone(timedelta(minutes=m)))
moments = st.datetimes(timezones=offsets)


def format_date_string(moment: datetime, zone_name: str = "") -> str:
    """Write a moment as JavaScript does."""
    day = moment.strftime("%a %b %d ") + f"{moment.year:04}"
    return day + moment.strftime(" %H:%M:%S GMT%z")[:18] + zone_name


@given(moments, st.sampled_from(["", " (CDT)", " (Mitteleuropäische Zeit)", " (GMT+03:00)"]))
def test_date_string_of_any_moment_is_accepted(moment: datetime, zone_name: str) -> None:
    assert is_timestamp(format_date_string(moment, zone_name))


@given(moments)
def test_rfc_3339_of_any_moment_is_accepted(moment: datetime) -> None:
    assert is_timestamp(moment.isoformat())
    assert is_timestamp(moment.isoformat(timespec="microseconds"))


@given(st.datetimes(timezones=st.just(UTC)))
def test_http_date_of_any_moment_is_accepted(moment: datetime) -> None:
    assert is_timestamp(format_datetime(moment, usegmt=True))


@given(
    st.one_of(st.integers(0, 9999), st.sampled_from([0, 1900, 2000, 2016, 2100])),
    st.integers(1, 12),
    st.integers(0, 39),
)
@example(0, 2, 29)
@example(1900, 2, 29)
@example(2000, 2, 29)
@example(9999, 12, 31)
def test_day_is_accepted_in_every_form_exactly_if_the_calendar_has_it(
    year: int, month: int, day: int
) -> None:
    # Year 0 is a leap year of the proleptic calendar, which `calendar` starts at 1.
    exists = 1 <= day <= calendar.monthrange(year or 400, month)[1]
    name = MONTHS[month - 1]
    assert is_timestamp(f"Tue {name} {day:02} {year:04} 09:11:51 GMT-0500 (CDT)") is exists
    assert is_timestamp(f"{year:04}-{month:02}-{day:02}T09:11:51Z") is exists
    assert is_timestamp(f"Tue, {day:02} {name} {year:04} 09:11:51 GMT") is exists


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_clock_time_is_accepted_in_every_form_exactly_if_it_exists(
    hour: int, minute: int, second: int
) -> None:
    clock = f"{hour:02}:{minute:02}:{second:02}"
    exists = hour <= 23 and minute <= 59 and second <= 59
    # ECMAScript has no second 60.
    or_60 = hour <= 23 and minute <= 59 and second <= 60
    assert is_timestamp(f"Tue Nov 01 2016 {clock} GMT-0500") is exists
    assert is_timestamp(f"2016-11-01T{clock}Z") is or_60
    assert is_timestamp(f"Tue, 01 Nov 2016 {clock} GMT") is or_60


@given(st.integers(0, 99), st.integers(0, 99))
def test_offset_is_accepted_exactly_below_a_day(hours: int, minutes: int) -> None:
    exists = hours <= 23 and minutes <= 59
    assert is_timestamp(f"Tue Nov 01 2016 09:11:51 GMT+{hours:02}{minutes:02}") is exists
    assert is_timestamp(f"2016-11-01T09:11:51-{hours:02}:{minutes:02}") is exists
    assert is_timestamp(f"2016-11-01T09:11:51-{hours:02}{minutes:02}") is exists


@pytest.mark.parametrize(
    "value",
    [
        "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",
        "Tue Nov 01 2016 09:11:51 GMT-0500",
        "Tue Nov 01 2016 09:11:51 GMT+0000 (Coordinated Universal Time)",
        "Tue Nov 01 2016 09:11:51 GMT-0600 (Central Standard Time (Mexico))",
        "Mon Nov 01 2016 09:11:51 GMT-0500 (CDT)",  # it was a Tuesday: the name is not checked
        "2016-11-01T14:11:51.000Z",  # Date.prototype.toISOString
        "2016-11-01t14:11:51z",
        "2016-11-01T09:11:51.123456789012345678901234567890-05:00",
        "2016-11-01T14:11:51-00:00",
        "Tue, 01 Nov 2016 14:11:51 GMT",
        1478009511000,
        0,
        -1,
        MAX_TIME_MS,
        -MAX_TIME_MS,
    ],
)
def test_form_of_the_contract_is_accepted(value: object) -> None:
    assert is_timestamp(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "now",
        "Invalid Date",
        "2016-11-01",
        "09:11:51",
        "2016-11-01T09:11:51",
        "2016-11-01T09:11Z",
        "2016-11-01T09:11:51.Z",
        "2016-11-01T09:11:51,5Z",
        "2016-13-01T09:11:51Z",
        "2016-00-01T09:11:51Z",
        "16-11-01T09:11:51Z",
        "+002016-11-01T09:11:51Z",
        "２016-11-01T09:11:51Z",  # noqa: RUF001 - a wide digit is no digit
        "2016-11-01T09:11:51Z\n",
        " 2016-11-01T09:11:51Z",
        "2016-11-01  09:11:51Z",
        "2016-11-01\t09:11:51Z",
        "2016-11-01 09:11:51 -0500",
        "2016-11-01T09:11:51-05",
        "2016-11-1T09:11:51Z",
        "2016-12-31T23:59:61Z",
        "Sat Dec 31 2016 23:59:60 GMT+0000",  # ECMAScript has no leap second
        "2016-11-01T09:11:51[America/Chicago]",
        "2016-11-01T09:11:51-05:00[!America/Chicago]",  # critical: somebody must check it
        "2016-11-01T09:11:51-05:00[America/Chicago",
        "2016-11-01T09:11:51-05:00[]",
        "2016-11-01T09:11:51-05:00[America//Chicago]",
        "2016-11-01T09:11:51-05:00[u-ca=gregory][America/Chicago]",
        "2016-11-01T09:11:51-05:00[U-CA=gregory]",
        "2016-11-01T09:11:51-05:00[u-ca=]",
        "Tue Nov  1 2016 09:11:51 GMT-0500",
        "Tue Nov 00 2016 09:11:51 GMT-0500",
        "Tue Nov 0 2016 09:11:51 GMT-0500",
        "Tue Nov 001 2016 09:11:51 GMT-0500",
        "Tue Nov 01 2016 09:11:51 GMT-05:00",
        "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT) ",
        "Tue Nov 01 2016 09:11:51 GMT-0500 CDT",
        "Tue Nov 01 2016 09:11:51 GMT-0500 ()",
        "Tue Nov 01 2016 09:11:51 GMT-0500 (a\nb)",
        "Tue Nov 01 2016 09:11:51 GMT",
        "Tue Nov 01 2016 09:11:51 CDT",
        "Tue Nov 01 2016",
        "Die Nov 01 2016 09:11:51 GMT-0500",
        "tue nov 01 2016 09:11:51 GMT-0500",
        "Tue Okt 01 2016 09:11:51 GMT-0500",
        "Tue, 01 Nov 2016 14:11:51 +0000",
        "Tuesday, 01-Nov-16 14:11:51 GMT",  # the two obsolete forms of RFC 9110
        "Tue Nov  1 14:11:51 2016",
        "1478009511000",
        True,
        False,
        None,
        MAX_TIME_MS + 1,
        -MAX_TIME_MS - 1,
        2**70,
        [],
        {},
    ],
)
def test_anything_else_is_refused(value: object) -> None:
    assert not is_timestamp(value)


@given(moments, st.data())
def test_text_with_one_character_left_out_is_refused(moment: datetime, data: st.DataObject) -> None:
    text = data.draw(
        st.sampled_from([format_date_string(moment), moment.isoformat("T", "seconds")])
    )
    at = data.draw(st.integers(0, len(text) - 1))
    shorter = text[:at] + text[at + 1 :]
    # What is left may be another spelling: without a digit of the day, or the colon of the offset.
    is_day, is_colon = text[3] == " " and at in {8, 9}, text[4] == "-" and at == len(text) - 3
    assert not is_timestamp(shorter) or is_day or is_colon


@pytest.mark.parametrize(
    "text",
    [
        "2016-11-01T09:11:51." + "1" * 500_000,
        "2016-11-01T09:11:51Z[" + "a" * 500_000,
        "2016-11-01T09:11:51Z[" + "a/" * 250_000,
        "2016-11-01T09:11:51Z" + "[a=b]" * 100_000 + "[",
        "2016-11-01T09:11:51Z[a=" + "b-" * 250_000,
        "Tue Nov 01 2016 09:11:51 GMT-0500 (" + "(" * 500_000,
    ],
)
def test_a_long_text_is_refused_in_linear_time(text: str) -> None:
    start = time.process_time()
    assert not is_timestamp(text)
    assert time.process_time() - start < 0.5


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2},? [0-9a-zA-Z :+()-]{10,40}"))
def test_any_text_is_accepted_or_refused(text: str) -> None:
    assert is_timestamp(text) in (True, False)
