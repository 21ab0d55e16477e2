"""The filters of `cat`: what a search of bytes finds is what parsing every line finds."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busyapi.archive_cli.line_filter import Query
from busyapi.decode.json_line import render

PATIENTS = st.sampled_from(["1", "10", "100", "0", "-7", "ä", 'a"b', "\\", "\n", "x" * 9])
PATIENT_VALUES: st.SearchStrategy[Any] = (
    PATIENTS | st.integers(-10, 110) | st.sampled_from([True, None, 1.0, [1], {}])
)
MEDICATIONS = st.sampled_from(["A", "Ä", 'A"', "A\\", "AB"])
USAGES = st.fixed_dictionaries(
    {},
    optional={
        "patientId": PATIENT_VALUES,
        "medication": MEDICATIONS | st.integers(0, 3),
        "timestamp": st.sampled_from(["2016-11-01T09:11:51Z", 1478009511000, "x", None]),
        "nested": st.fixed_dictionaries({"patientId": PATIENT_VALUES, "medication": MEDICATIONS}),
    },
)


def make_lines(usages: list[dict[str, Any]], *, escaped: bool) -> bytes:
    line = b'{"id":%d,"receivedAt":"2026-11-23T19:12:00.123Z","usage":%b}\n'
    texts = [json.dumps(usage, separators=(",", ":")).encode() for usage in usages]
    rendered = texts if escaped else [render(usage) for usage in usages]
    return b"".join(line % pair for pair in enumerate(rendered, 1))


def matches(usage: dict[str, Any], patients: set[str], medications: set[str]) -> bool:
    patient, medication = usage.get("patientId"), usage.get("medication")
    is_id = type(patient) in {str, int} and str(patient) in patients
    return (not patients or is_id) and (not medications or medication in medications)


@given(
    usages=st.lists(USAGES, max_size=8),
    # More than eight patients are found by one expression.
    patients=st.sets(PATIENTS, max_size=3)
    | st.just({str(number) for number in range(-5, 101)} | {"ä"}),
    medications=st.sets(MEDICATIONS, max_size=2),
    escaped=st.booleans(),
)
def test_lines_are_those_of_a_full_parse(
    usages: list[dict[str, Any]], patients: set[str], medications: set[str], *, escaped: bool
) -> None:
    lines = make_lines(usages, escaped=escaped)
    query = Query(patients=frozenset(patients), medications=frozenset(medications))
    ids = [json.loads(line)["id"] for line in query.select_content(lines).splitlines()]
    assert ids == [
        at for at, usage in enumerate(usages, 1) if matches(usage, patients, medications)
    ]


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [(1477991511000, None, [1, 2]), (1477991511001, None, [2]), (None, 1478009511000, [1])],
)
def test_device_time_of_every_spelling(
    since: int | None, until: int | None, expected: list[int]
) -> None:
    times: list[Any] = ["2016-11-01T09:11:51Z", "Tue Nov 01 2016 09:11:51 GMT-0500", "x", None]
    lines = make_lines([{"timestamp": time} for time in times], escaped=False)
    query = Query(device_since_ms=since, device_until_ms=until)
    assert [json.loads(line)["id"] for line in query.select_content(lines).splitlines()] == expected
