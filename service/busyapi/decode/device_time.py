"""The instant that a timestamp means. `timestamp` decides which values are timestamps at all."""

import re
from datetime import date

from busyapi.decode.timestamp import is_timestamp

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBER = {name: number for number, name in enumerate(_MONTHS, 1)}

# `is_timestamp` has checked every part, so these patterns only find the parts.
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_OFFSET = r"(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)"
_NUMERIC = re.compile(
    rf"(?P<year>\d{{4}})-(?P<month>\d\d)-(?P<day>\d\d).{_CLOCK}(?:\.(?P<fraction>\d+))?(?:{_OFFSET})?",
    re.ASCII,
)
_MONTH = r"(?P<month>[A-Z][a-z]{2})"
_NAMED = re.compile(
    rf"[A-Z][a-z]{{2}},? (?:{_MONTH} (?P<day>\d{{1,2}})"
    r"|(?P<first_day>\d{1,2}) (?P<then_month>\w+)) "
    rf"(?P<year>\d{{4}}) {_CLOCK}(?: GMT(?:{_OFFSET})?)?",
    re.ASCII,
)
_DAYS_IN_400_YEARS = 146_097
_EPOCH = date(1970, 1, 1).toordinal()


def parse_device_time(value: object) -> int | None:
    """Return the milliseconds since 1970 of a timestamp; None if the value is not a timestamp.

    Digits beyond milliseconds are cut off. A leap second is the first second of the next minute, as
    in POSIX.
    """
    if not is_timestamp(value):
        return None
    if isinstance(value, int | float):
        return int(value)
    text = str(value)
    match = _NUMERIC.match(text) or _NAMED.match(text)
    return _to_ms(match.groupdict()) if match else None


def _to_ms(part: dict[str, str | None]) -> int:
    month = part["month"] or part["then_month"] or ""
    day = part["day"] or part["first_day"] or ""
    # `datetime` has no year 0, and the calendar repeats every 400 years.
    cycles, year = divmod(int(part["year"] or 0), 400)
    ordinal = date(year + 400, _MONTH_NUMBER.get(month) or int(month), int(day)).toordinal()
    days = ordinal + (cycles - 1) * _DAYS_IN_400_YEARS - _EPOCH
    minutes = (days * 24 + int(part["hour"] or 0)) * 60 + int(part["minute"] or 0)
    if part["sign"]:
        offset = int(part["hours"] or 0) * 60 + int(part["minutes"] or 0)
        minutes += offset if part["sign"] == "-" else -offset
    fraction = (part.get("fraction") or "").ljust(3, "0")[:3]
    return (minutes * 60 + int(part["second"] or 0)) * 1000 + int(fraction)
