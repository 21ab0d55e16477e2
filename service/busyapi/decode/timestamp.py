"""The forms of a timestamp that a device may send.

    Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)     JavaScript's Date.prototype.toString
    2016-11-01T09:11:51.250-05:00               RFC 3339
    Tue, 01 Nov 2016 14:11:51 GMT               IMF-fixdate, RFC 9110 section 5.6.7
    1478009511000                               milliseconds since 1970

Some devices spell them in other ways, which are accepted too:

    Tue Nov 1 2016 …, Tue, 1 Nov 2016 …         old JavaScript engines: no zero before the day
    2016-11-01T09:11:51-0500                    no colon in the offset
    2016-11-01 09:11:51-05:00                   a blank for the T
    2016-11-01T09:11:51-05:00[America/Chicago]  a zone and tags in brackets, RFC 9557
    1478009511000.0, 1.478009511e12             a whole number, as JSON Schema defines an integer

`FORMS` decides about text: the OpenAPI document has the same patterns, so any JSON Schema validator
accepts what this module accepts. They contain the calendar, and use only what all engines of
regular expressions understand. The second may be 60: a leap second, or a device that rounds up. The
name of the day is not checked: V8, Go and Python's `email` do not check it either, and the instant
does not depend on it. For the same reason the name of a zone is not compared with the offset. A
bracket marked as critical (`[!…`) is refused, because RFC 9557 demands that it is checked.

A text is stored as it was sent, a whole number as an integer: see `validation`.
"""

import re
from datetime import date

MAX_TIME_MS = 8_640_000_000_000_000
"""The largest distance from 1970, in milliseconds (ECMA-262, TimeClip)."""
MIN_PLAUSIBLE_MS = 946_684_800_000
"""The year 2000. A number of seconds since 1970 is smaller."""
MAX_PLAUSIBLE_MS = 4_102_444_800_000
"""The year 2100, which is not plausible. A number of microseconds since 1970 is larger."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HOUR, _MINUTE = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
_CLOCK, _OFFSET = f"{_HOUR}:{_MINUTE}", f"[+-]{_HOUR}:?{_MINUTE}"
_WEEKDAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
"""Year 0 is one: the calendar is that of ISO 8601."""
_ZONE_CHARACTER = r"[^\x00-\x1f\x7f]"
_ZONE_PART = "[A-Za-z_][A-Za-z0-9._+-]*"
_SUFFIX = (
    rf"(?:\[(?:{_ZONE_PART}(?:/{_ZONE_PART})*|[+-]{_HOUR}:{_MINUTE})\])?"
    r"(?:\[[a-z_][a-z0-9_-]*=[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\])*"
)


def _calendar(order: str, months: tuple[str, ...] | None, first_days: str) -> str:
    """Return a pattern of all days that exist; `order` has the fields {year}, {month} and {day}."""
    names = months or tuple(f"{number:02}" for number in range(1, 13))

    def choose(*numbers: int) -> str:
        return f"(?:{'|'.join(names[number - 1] for number in numbers)})"

    year = "[0-9]{4}"
    days = (
        (year, choose(1, 3, 5, 7, 8, 10, 12), f"(?:{first_days}|[12][0-9]|3[01])"),
        (year, choose(4, 6, 9, 11), f"(?:{first_days}|[12][0-9]|30)"),
        (year, names[1], f"(?:{first_days}|1[0-9]|2[0-8])"),
        (_LEAP_YEAR, names[1], "29"),
    )
    dates = (order.format(year=year, month=month, day=day) for year, month, day in days)
    return f"(?:{'|'.join(dates)})"


# The name of a zone may hold brackets: "(Central Standard Time (Mexico))".
_DATE_STRING = (
    f"{_WEEKDAY} {_calendar('{month} {day} {year}', _MONTHS, '0?[1-9]')} {_CLOCK}:{_MINUTE}"
    rf" GMT[+-]{_HOUR}{_MINUTE}(?: \({_ZONE_CHARACTER}{{1,100}}\))?"
)
_RFC_3339 = (
    rf"{_calendar('{year}-{month}-{day}', None, '0[1-9]')}[Tt ]{_CLOCK}:(?:{_MINUTE}|60)"
    rf"(?:\.[0-9]+)?(?:[Zz]|{_OFFSET}){_SUFFIX}"
)
_IMF_FIXDATE = (
    f"{_WEEKDAY}, {_calendar('{day} {month} {year}', _MONTHS, '0?[1-9]')}"
    f" {_CLOCK}:(?:{_MINUTE}|60) GMT"
)
FORMS = (_DATE_STRING, _RFC_3339, _IMF_FIXDATE)
"""The pattern of each textual form, for the whole of a text."""

_match_form = re.compile("|".join(FORMS)).fullmatch


def make_plain_pattern(zone_character: str = _ZONE_CHARACTER) -> str:
    """Return a pattern of most timestamps in text. What it does not match may still be one.

    It matches only a plausible year and a day that every month has, in the usual spelling, so it is
    half as long as the full patterns.
    `zone_character`: the pattern of a character in the name of a zone.
    """
    day, year = "(?:0[1-9]|1[0-9]|2[0-8])", "20[0-9]{2}"
    month, second = f"(?:{'|'.join(_MONTHS)})", f"{_CLOCK}:{_MINUTE}"
    zone = rf"(?: \({zone_character}{{1,100}}\))?"
    date_string = f"{_WEEKDAY} {month} {day} {year} {second} GMT[+-]{_HOUR}{_MINUTE}{zone}"
    offset = f"(?:[Zz]|[+-]{_HOUR}:{_MINUTE})"
    rfc_3339 = rf"{year}-(?:0[1-9]|1[0-2])-{day}[Tt]{second}(?:\.[0-9]+)?{offset}"
    imf_fixdate = f"{_WEEKDAY}, {day} {month} {year} {second} GMT"
    return f"{date_string}|{rfc_3339}|{imf_fixdate}"


match_plain_timestamp = re.compile(make_plain_pattern()).fullmatch

PLAIN_INTEGER = "[1-3][0-9]{12}"
"""A pattern of most plausible numbers: September 2001 to 2096."""


def is_timestamp(value: object) -> bool:
    """Return whether a value has one of the forms above."""
    if type(value) is str:
        return _match_form(value) is not None
    # `type`, not `isinstance`: True is an int.
    return type(value) is int and -MAX_TIME_MS <= value <= MAX_TIME_MS


def is_plausible(value: object) -> bool:
    """Return whether a timestamp is in the years 2000 to 2099.

    A number outside of them is probably one of seconds or microseconds, and a text comes from a
    clock that was never set. Of a text the year counts as it is written.
    """
    if type(value) is str:
        parts = _find_parts(value)
        return parts is not None and parts["year"].startswith("20")
    return type(value) is int and MIN_PLAUSIBLE_MS <= value < MAX_PLAUSIBLE_MS


_find_date_string = re.compile(
    r"\w{3} (?P<month>\w{3}) (?P<day>\d+) (?P<year>\d{4}) (?P<clock>[\d:]{8}) GMT(?P<offset>.{5})"
).match
_find_rfc_3339 = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d).(?P<clock>[\d:]{8})(?:\.(?P<fraction>\d+))?"
    r"(?P<offset>[Zz]|[+-]\d\d:?\d\d)"
).match
_find_imf_fixdate = re.compile(
    r"\w{3}, (?P<day>\d+) (?P<month>\w{3}) (?P<year>\d{4}) (?P<clock>[\d:]{8})"
).match


def _find_parts(text: str) -> dict[str, str] | None:
    """Return the parts of a text that has one of the forms, None for other texts."""
    match = _find_rfc_3339(text) or _find_date_string(text) or _find_imf_fixdate(text)
    return match.groupdict("") if match else None


def compute_unix_ms(value: object) -> int | None:
    """Return the instant of a timestamp, in milliseconds since 1970; None if it is not one.

    Further digits of a fraction are cut off. A second 60 is the first of the next minute.
    """
    if not is_timestamp(value):
        return None
    if not isinstance(value, str):
        return int(value)  # type: ignore[call-overload, no-any-return] # is_timestamp has checked it
    parts = _find_parts(value)
    if parts is None:
        return None
    name = parts["month"]
    month = _MONTHS.index(name) + 1 if name in _MONTHS else int(name)
    # `date` has no year 0. The calendar repeats every 400 years, which are 146,097 days.
    cycles, year = divmod(int(parts["year"]), 400)
    days = date(year + 400, month, int(parts["day"])).toordinal() + (cycles - 1) * 146_097
    hours, minutes, seconds = map(int, parts["clock"].split(":"))
    offset = parts.get("offset", "").replace(":", "").strip("Zz")
    if offset:
        sign = -1 if offset[0] == "-" else 1
        hours -= sign * int(offset[1:3])
        minutes -= sign * int(offset[3:])
    total = (((days - _UNIX_EPOCH_DAYS) * 24 + hours) * 60 + minutes) * 60 + seconds
    return total * 1000 + int(parts.get("fraction", "")[:3].ljust(3, "0"))


_UNIX_EPOCH_DAYS = date(1970, 1, 1).toordinal()
