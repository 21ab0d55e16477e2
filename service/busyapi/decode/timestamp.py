"""The forms of a timestamp that a device may send.

    Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)     JavaScript's Date.prototype.toString
    2016-11-01T09:11:51.250-05:00               RFC 3339
    Tue, 01 Nov 2016 14:11:51 GMT               IMF-fixdate, RFC 9110 section 5.6.7
    1478009511000                               milliseconds since 1970

The date must exist in the calendar. The name of the day is not checked: V8, Go and Python's `email`
do not check it either, and the instant does not depend on it. This module only validates a
timestamp; it is stored as it was sent.
"""

import re
from datetime import datetime, timedelta

MAX_TIME_MS = 8_640_000_000_000_000
"""The largest distance from 1970, in milliseconds (ECMA-262, TimeClip)."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBER = {name: f"{number:02}" for number, name in enumerate(_MONTHS, 1)}


def _patterns(
    day: str, second: str, zone_character: str = r"[^\x00-\x1f\x7f]"
) -> tuple[str, str, str]:
    """Return the patterns of the three textual forms, from those of their parts."""
    hour, minute = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
    weekday, month = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)", f"(?P<month>{'|'.join(_MONTHS)})"
    year, clock = "(?P<year>[0-9]{4})", f"(?P<clock>{hour}:{minute})"
    # The name of a zone may hold brackets: "(Central Standard Time (Mexico))".
    zone_name = rf"\({zone_character}{{1,100}}\)"
    # ECMAScript has no leap seconds.
    date_string = (
        f"{weekday} {month} {day} {year} {clock}:(?P<second>[0-5][0-9])"
        f" GMT[+-]{hour}{minute}(?: {zone_name})?"
    )
    rfc_3339 = (
        f"{year}-(?P<month>0[1-9]|1[0-2])-{day}[Tt]{clock}:{second}"
        rf"(?:\.[0-9]+)?(?:[Zz]|(?P<offset>[+-]{hour}:{minute}))"
    )
    imf_fixdate = f"{weekday}, {day} {month} {year} {clock}:{second} GMT"
    return date_string, rfc_3339, imf_fixdate


def make_plain_pattern(*zone_character: str) -> str:
    """Return a pattern of the text of most timestamps. What it does not match may still be one.

    The pattern alone decides for a day that every month has and without a leap second. It has no
    named groups: they cost time, and one pattern cannot have the same name three times.
    `zone_character`: the pattern of a character in the name of a zone, if not the default.
    """
    forms = _patterns("(?:0[1-9]|1[0-9]|2[0-8])", "[0-5][0-9]", *zone_character)
    return re.sub(r"\?P<\w+>", "?:", "|".join(forms))


match_plain_timestamp = re.compile(make_plain_pattern()).fullmatch

_FORMS = [
    re.compile(form).fullmatch
    for form in _patterns("(?P<day>0[1-9]|[12][0-9]|3[01])", "(?P<second>[0-5][0-9]|60)")
]


def is_timestamp(value: object) -> bool:
    """Return whether a value has one of the forms above and exists in the calendar.

    A leap second (:60) is valid where RFC 3339 section 5.7 allows one: as the last second of a
    month in UTC. The months that had one are not checked, because their list still grows.
    """
    if type(value) is str:
        return match_plain_timestamp(value) is not None or any(
            _exists_in_calendar(match) for fullmatch in _FORMS if (match := fullmatch(value))
        )
    # `type`, not `isinstance`: True is an int.
    return type(value) is int and -MAX_TIME_MS <= value <= MAX_TIME_MS


def _exists_in_calendar(match: re.Match[str]) -> bool:
    part = match.groupdict()
    month = _MONTH_NUMBER.get(part["month"], part["month"])
    # The calendar repeats every 400 years, and `datetime` supports all of these 400.
    date = f"{2000 + int(part['year']) % 400}-{month}-{part['day']}"
    try:
        if part["second"] != "60":
            return bool(datetime.fromisoformat(date))
        minute = datetime.fromisoformat(f"{date}T{part['clock']}{part.get('offset') or 'Z'}")
    except ValueError:
        return False
    return _ends_utc_month(minute)


def _ends_utc_month(minute: datetime) -> bool:
    after = minute - (minute.utcoffset() or timedelta()) + timedelta(minutes=1)
    return (after.day, after.hour, after.minute) == (1, 0, 0)
