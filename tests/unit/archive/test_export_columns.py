"""The columns of an export: the same for every layout of a line, and what FORMAT.md says of it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from busyapi.archive_cli.columns import make_batch, make_schema
from busyapi.archive_cli.device_times import parse_texts
from busyapi.archive_cli.export_options import Flattened
from busyapi.archive_cli.parsed_lines import parse_lines
from busyapi.archive_cli.plain_lines import read_plain_lines
from busyapi.decode.json_line import render
from busyapi.decode.timestamp import compute_unix_ms
from busyapi.errors import ArchiveDamaged
from busyapi.stamp import Stamp, encode_stamp

RECEIVED = "2026-11-23T19:12:00.123Z"
_NO_TIMES: list[Any] = ["x", True, None, 2**60, {}]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_NAMED = {"patientId", "timestamp", "medication"}
NAMES = st.sampled_from(
    ["patientId", "timestamp", "medication", "usage", "id", "writer", "tenant", "a", "ä", '"', "\\"]
)
TEXTS = st.text(max_size=8) | st.sampled_from(
    ['","usage":{"patientId":', ',"timestamp":', '},"writer":"', "}}", '"', "\\", ",", "t,", "\n"]
)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
TIMES = st.sampled_from(
    [
        "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",
        "Tue Nov 01 2016 09:11:51 GMT-0500 (Central Standard Time (Mexico))",
        "Tue Feb 30 2016 09:11:51 GMT-0500",
        "2016-11-01T09:11:51.250-05:00",
        "2016-11-01t09:11:51z",
        "2016-12-31T23:59:60Z",
        "Tue, 01 Nov 2016 14:11:51 GMT",
        "yesterday",
    ]
)
USUAL = st.builds(
    lambda patient, time, medication, more: {
        "patientId": patient,
        "timestamp": time,
        "medication": medication,
        **{name: value for name, value in more.items() if name not in _NAMED},
    },
    TEXTS | st.integers(-(2**53), 2**53),
    TIMES | st.integers(-(10**16), 10**16),
    TEXTS,
    st.dictionaries(NAMES, VALUES, max_size=2),
)
USAGES = st.dictionaries(NAMES, VALUES, max_size=5) | USUAL
STAMPS = st.none() | st.builds(
    Stamp, st.just("8nC3hQ2vXr0aLw_K"), st.text(max_size=6, alphabet='a"\\ä},:')
)


def make_line(number: int, usage: dict[str, Any], stamp: Stamp | None = None) -> bytes:
    stamped = render(usage) + (encode_stamp(stamp) if stamp else b"")
    return b'{"id":%d,"receivedAt":"%b","usage":%b}\n' % (number, RECEIVED.encode(), stamped)


def to_rows(lines: bytes, *flattened: Flattened) -> list[dict[str, Any]]:
    batch = make_batch([lines], 3, make_schema(flattened), flattened)
    batch.validate(full=True)
    at = batch.schema.get_field_index("device_time")
    # Python's datetime ends with the year 9999.
    rows: list[dict[str, Any]] = batch.set_column(
        at, "device_time", batch["device_time"].cast(pa.int64())
    ).to_pylist()
    return rows


def expect(number: int, usage: dict[str, Any], stamp: Stamp | None) -> dict[str, Any]:
    """Return the columns as their documentation has them, from values alone."""
    rest = json.loads(render(usage))
    row: dict[str, Any] = {}
    for name in ("patientId", "medication", "timestamp"):
        value = rest.get(name)
        is_text = isinstance(value, str)
        is_number = type(value) is int and name != "medication"
        row[name] = str(rest.pop(name)) if is_text or is_number else None
    device_time = compute_unix_ms(usage.get("timestamp"))
    if device_time is not None and row["timestamp"] is None:
        row["timestamp"] = render(rest.pop("timestamp")).decode()
    return {
        "id": number,
        "received_at": datetime.fromisoformat(RECEIVED),
        "device_time": device_time,
        "device_time_text": row["timestamp"],
        "patient_id": row["patientId"],
        "medication": row["medication"],
        "tenant": (stamp.tenant or None) if stamp else None,
        "writer": stamp.writer if stamp else None,
        "partition": 3,
        "extra": rest or None,
    }


@given(st.lists(st.tuples(USAGES, STAMPS), min_size=1, max_size=6))
def test_columns_are_those_of_each_line_in_order(lines: list[tuple[dict[str, Any], Any]]) -> None:
    blob = b"".join(make_line(at, *line) for at, line in enumerate(lines, 1))
    rows = to_rows(blob)
    for row in rows:
        row["extra"] = json.loads(row["extra"]) if row["extra"] else None
    assert rows == [expect(at, *line) for at, line in enumerate(lines, 1)]


@given(st.lists(st.tuples(USUAL, STAMPS), min_size=1, max_size=6))
def test_both_readers_of_lines_agree(lines: list[tuple[dict[str, Any], Any]]) -> None:
    blob = b"".join(
        make_line(at, *line).replace(b".123Z", b".%03dZ" % (at // 2), 1)
        for at, line in enumerate(lines, 1)
    )
    plain, others = read_plain_lines(blob)
    if plain is not None:
        rest = set(others.splitlines())
        same = b"".join(line for line in blob.splitlines(keepends=True) if line[:-1] not in rest)
        for column, other in zip(plain, parse_lines(same), strict=True):
            assert column.equals(other)


def test_each_line_has_one_row_if_none_is_of_the_usual_layout() -> None:
    plain = {"patientId": "7", "timestamp": "", "medication": "A"}
    other = {"patientId": "7", "medication": "A", "timestamp": ""}
    escaped = {**plain, "patientId": "\\"}
    stamp = Stamp("8nC3hQ2vXr0aLw_K", "clinic-7")
    lines = [make_line(1, other, stamp), make_line(2, plain), make_line(3, escaped)]
    assert [row["id"] for row in to_rows(b"".join(lines))] == [1, 2, 3]
    assert [row["medication"] for row in to_rows(make_line(1, other))] == ["A"]


def test_a_number_has_one_spelling_in_either_reader() -> None:
    line = make_line(1, {"patientId": 5, "timestamp": 5, "medication": "A"}).replace(b":5", b":-0")
    assert (to_rows(line)[0]["patient_id"], to_rows(line)[0]["device_time_text"]) == ("0", "0")


def test_a_number_beyond_64_bits_is_read_beside_a_text() -> None:
    usages: list[dict[str, Any]] = [
        {"timestamp": 2**63, "patientId": -(2**63) - 1},
        {"timestamp": "", "patientId": "7"},
    ]
    blob = b"".join(make_line(at, usage) for at, usage in enumerate(usages, 1))
    rows = [(row["device_time_text"], row["patient_id"]) for row in to_rows(blob)]
    assert rows == [("9223372036854775808", "-9223372036854775809"), ("", "7")]


@pytest.mark.parametrize("stamp", [None, Stamp("8nC3hQ2vXr0aLw_K", "clinic-7")])
def test_lines_of_the_usual_layout_are_not_parsed(stamp: Stamp | None) -> None:
    usages: list[dict[str, Any]] = [
        {"patientId": "8", "timestamp": 1, "medication": "A", "more": "x" * 10_000},
        {"patientId": "Ä", "timestamp": RECEIVED, "medication": "Albuterol"},
        {"patientId": 7, "timestamp": 1478009511000, "medication": "'"},
        {"patientId": "", "timestamp": "", "medication": "", "a": {"b": [1, "x"]}},
    ]
    blob = b"".join(make_line(at, usage, stamp) for at, usage in enumerate(usages, 1))
    plain, others = read_plain_lines(blob)
    assert plain
    assert len(plain.id) == len(usages)
    assert others == b""


@pytest.mark.parametrize("stamp", [None, Stamp("8nC3hQ2vXr0aLw_K", "clinic")])
@pytest.mark.parametrize(
    ("usual", "other"),
    [
        ("patientId", "patientID"),
        ("timestamp", "timeStamp"),
        ("medication", "medicatioN"),
        ('"7"', "true"),
        ('"7"', '"7,"'),
        ('"noon"', "null"),
        ('"noon"', '["noon"]'),
        ('"A"', "1"),
        ('"A"', '","'),
        ('"A"', '"A" '),
    ],
)
def test_only_lines_of_another_layout_are_parsed(
    usual: str, other: str, stamp: Stamp | None
) -> None:
    line = make_line(1, {"patientId": "7", "timestamp": "noon", "medication": "A"}, stamp)
    changed = line.replace(usual.encode(), other.encode())
    assert read_plain_lines(line + changed + line)[1] == changed


@pytest.mark.parametrize(
    ("usual", "other"),
    [
        ("receivedAt", "receivedAT"),
        ('"7"', '"7'),
        ('"7"', '7"'),
        ('"7"', '"'),
        ('"7"', '"7"8"'),
        ('"noon"', '"noon'),
        ('"noon"', ""),
        ('"A"', '"A"B"'),
        ("}}\n", "]}\n"),
        ("}}\n", "}]\n"),
        ('"}\n', '"]\n'),
        ('"}\n', '"x\n'),
        ('},"writer', '],"writer'),
        ("writer", "writeR"),
        ("8nC3hQ2vXr0aLw_K", "8nC3hQ2vXr0aLw K"),
        ("8nC3hQ2vXr0aLw_K", "8nC3hQ2vXr0aLw_"),
        ("tenant", "tenAnt"),
        ("clinic", ""),
        ("clinic", 'cli"nic'),
        (',"tenant":"clinic"', ","),
    ],
)
def test_what_is_no_line_is_left_to_the_parser(usual: str, other: str) -> None:
    """Perhaps with the whole block: there is no such line in an archive."""
    usage = {"patientId": "7", "timestamp": "noon", "medication": "A"}
    for stamp in (None, Stamp("8nC3hQ2vXr0aLw_K", "clinic")):
        line = make_line(1, usage, stamp)
        changed = line.replace(usual.encode(), other.encode())
        left = read_plain_lines(line + changed + line)[1]
        assert left in {changed, line + changed + line} if changed != line else left == b""


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":1,"receivedAt":"x","usage":{"patientId":"1","timestamp":1,"medication":"A"}}\n',
        b'{"id":1,"receivedAt":"2026-11-23T19:12:00.123Z","usage":[]}\n',
        make_line(1, {"patientId": "ä", "timestamp": 1, "medication": "A"}).replace(b"\xa4", b""),
        b"{}\n",
    ],
)
def test_what_is_no_line_is_damage_and_is_not_quoted(line: bytes) -> None:
    with pytest.raises(ArchiveDamaged) as raised:
        to_rows(line)
    assert "2026" not in str(raised.value)


def test_members_are_flattened_to_text() -> None:
    usages: list[dict[str, Any]] = [
        {"device": {"battery": 87, "name": "x", "list": [1, {"a": None}]}},
        {"device": "none"},
        {},
    ]
    lines = b"".join(make_line(at, usage) for at, usage in enumerate(usages, 1))
    paths = [
        Flattened("device.battery", ("device", "battery")),
        Flattened("device.list.1", ("device", "list", "1")),
        Flattened("device", ("device",)),
    ]
    rows = [[row[path.column] for path in paths] for row in to_rows(lines, *paths)]
    assert rows == [
        ["87", '{"a":null}', '{"battery":87,"name":"x","list":[1,{"a":null}]}'],
        [None, None, "none"],
        [None, None, None],
    ]


class TestDeviceTime:
    @pytest.mark.parametrize(
        ("spelling", "instant"),
        [
            ("Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)", "2016-11-01T14:11:51Z"),
            ("Tue Nov 01 2016 09:11:51 GMT+0530", "2016-11-01T03:41:51Z"),
            ("2016-11-01T09:11:51.2509-05:00", "2016-11-01T14:11:51.250Z"),
            ("2016-11-01T09:11:51Z", "2016-11-01T09:11:51Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59.500Z"),
            ("Tue, 01 Nov 2016 14:11:51 GMT", "2016-11-01T14:11:51Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
            (1478009511000, "2016-11-01T14:11:51Z"),
        ],
    )
    def test_instant_of_each_spelling(self, spelling: object, instant: str) -> None:
        expected = (datetime.fromisoformat(instant) - EPOCH) // timedelta(milliseconds=1)
        assert compute_unix_ms(spelling) == expected

    def test_year_0_and_what_is_no_time(self) -> None:
        assert compute_unix_ms("0000-01-01T00:00:00Z") == -62_167_219_200_000
        assert [compute_unix_ms(value) for value in _NO_TIMES] == [None] * len(_NO_TIMES)

    @given(
        st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001 - a wall clock
        st.integers(-23 * 60, 23 * 60),
        st.sampled_from(
            [
                "{:%a %b %d %Y %H:%M:%S} GMT{sign}{hours:02}{minutes:02}",
                "{:%a, %d %b %Y %H:%M:%S} GMT",
                "{:%Y-%m-%dT%H:%M:%S}{fraction}{sign}{hours:02}:{minutes:02}",
            ]
        ),
        st.sampled_from(["", ".1", ".12", ".123", ".1234"]),
    )
    def test_arrow_reads_what_the_parser_reads(
        self, at: datetime, offset: int, form: str, fraction: str
    ) -> None:
        hours, minutes = divmod(abs(offset), 60)
        text = form.format(
            at,
            sign="-" if offset < 0 else "+",
            hours=hours,
            minutes=minutes,
            fraction=fraction,
        )
        # strftime of glibc does not pad years.
        text = text.replace(f"{at.year}", f"{at.year:04}", 1) if at.year > 31 else text
        (ms,) = parse_texts(pa.array([text])).cast(pa.int64()).to_pylist()
        assert ms == compute_unix_ms(text)
