"""The device's time of many usages at once.

`compute_unix_ms` decides what a text means. Arrow's own kernels give the same answer for the
plain spellings, in which devices send nearly all times, for a tenth of its cost. Any other text is
left to `compute_unix_ms`.
"""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from busyapi.decode.timestamp import compute_unix_ms

_TIME = pa.timestamp("ms", tz="UTC")
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_MONTH_NUMBERS = pa.array([f"-{month:02}-".encode() for month in range(1, 13)], pa.binary())
_MONTH_NAMES = pa.array([name.encode() for name in _MONTHS.split("|")], pa.binary())
_WEEKDAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_DAY, _YEAR = "(?:0[1-9]|[12][0-9]|3[01])", "(?:[1-9][0-9]{3})"
_HOUR, _SIXTY = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
_CLOCK = f"{_HOUR}:{_SIXTY}:{_SIXTY}"
_DATE_STRING = (
    rf"^{_WEEKDAY} (?:{_MONTHS}) {_DAY} {_YEAR} {_CLOCK} GMT[+-]{_HOUR}{_SIXTY}"
    r"(?: \([ -~]{1,100}\))?$"
)
_RFC_3339 = (
    rf"^{_YEAR}-(?:0[1-9]|1[0-2])-{_DAY}T{_CLOCK}(?:\.[0-9]{{1,3}})?(?:Z|[+-]{_HOUR}:{_SIXTY})$"
)
_IMF_FIXDATE = rf"^{_WEEKDAY}, {_DAY} (?:{_MONTHS}) {_YEAR} {_CLOCK} GMT$"


def parse_texts(texts: pa.StringArray, skip: pa.Array | None = None) -> pa.TimestampArray:
    """Return the instant of each text; null for null, and for what is not a timestamp.

    Texts at which `skip` is not null stay null, too.
    """
    times = pa.nulls(len(texts), _TIME)
    # Each form has its own fourth and fifth character.
    raw = texts.cast(pa.binary())
    mark = pc.binary_slice(raw, 3, 5)
    left = pc.is_valid(texts)
    if skip is not None:
        left = pc.and_not(left, pc.is_valid(skip))
    forms: list[tuple[pa.Array, str, Callable[[pa.Array], pa.Array]]] = [
        (pc.equal(pc.binary_slice(mark, 1, 2), b"-"), _RFC_3339, _read_rfc_3339),
        (pc.equal(pc.binary_slice(mark, 0, 1), b" "), _DATE_STRING, _read_date_string),
        (pc.equal(mark, b", "), _IMF_FIXDATE, _read_imf_fixdate),
    ]
    for looks_like, pattern, read in forms:
        at = pc.indices_nonzero(pc.fill_null(looks_like, fill_value=False))
        if not len(at):
            continue
        chosen = texts.take(at)
        matches = pc.match_substring_regex(chosen, pattern)
        if not pc.all(matches).as_py():
            at, chosen = at.filter(matches), chosen.filter(matches)
        try:
            read_times = read(chosen)
        except pa.ArrowInvalid:  # a day that its month does not have
            continue
        mask = _make_mask(at, len(texts))
        times = pc.replace_with_mask(times, mask, read_times)
        left = pc.and_not(left, mask)
    return _parse_others(times, texts, left)


def _make_mask(at: pa.Array, size: int) -> pa.Array:
    """Return which of `size` positions are in `at`."""
    ones = pa.repeat(pa.scalar(value=True), len(at))
    return pc.fill_null(pc.scatter(ones, at.cast(pa.int64()), max_index=size - 1), fill_value=False)


def _parse_others(
    times: pa.TimestampArray, texts: pa.StringArray, left: pa.BooleanArray
) -> pa.TimestampArray:
    others = texts.filter(left)
    if not len(others):
        return times
    chosen = pa.array([compute_unix_ms(text) for text in others.to_pylist()], pa.int64())
    return pc.replace_with_mask(times, left, chosen.cast(_TIME))


def _read_rfc_3339(texts: pa.StringArray) -> pa.TimestampArray:
    return texts.cast(_TIME)


def _read_date_string(texts: pa.StringArray) -> pa.TimestampArray:
    """Read `Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)`."""
    return _read_parts(texts, month=4, day=8, year=11, clock=16, offset=28)


def _read_imf_fixdate(texts: pa.StringArray) -> pa.TimestampArray:
    """Read `Tue, 01 Nov 2016 14:11:51 GMT`."""
    return _read_parts(texts, day=5, month=8, year=12, clock=17)


def _read_parts(
    texts: pa.StringArray, *, month: int, day: int, year: int, clock: int, offset: int | None = None
) -> pa.TimestampArray:
    """Rewrite each text as RFC 3339, which Arrow reads; all parts have a fixed place."""
    raw = texts.cast(pa.binary())
    name = pc.binary_slice(raw, month, month + 3)
    text = pc.binary_join_element_wise(
        pc.binary_slice(raw, year, year + 4),
        _MONTH_NUMBERS.take(pc.index_in(name, value_set=_MONTH_NAMES)),
        pc.binary_slice(raw, day, day + 2),
        b"T",
        pc.binary_slice(raw, clock, clock + 8),
        b"Z" if offset is None else pc.binary_slice(raw, offset, offset + 5),
        b"",
    )
    return text.cast(pa.string()).cast(_TIME)
