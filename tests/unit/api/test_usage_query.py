"""The parameters of a list of usages."""

import pytest

from busyapi.api.usage_query import UsageQuery, parse_query
from busyapi.web.problems import Problem

WRONG = [
    "",
    "patientId=",
    "medication=a",
    "patientId=1&patientId=2",
    "patientId=1&patient=2",
    "patientId=1&limit=0",
    "patientId=1&limit=1001",
    "patientId=1&limit=+1",
    "patientId=1&limit=%D9%A3",
    "patientId=1&after=",
    "patientId=1&after=x",
    "patientId=1&medication=",
    "patientId=1&from=yesterday",
    "patientId=1&from=2026-02-30",
    "patientId=1&from=20261123",
    "patientId=1&from=2026-11-23T19:12:00",
    "patientId=1&from=2026-11-23T19:12:00+01:00",
    "patientId=1&from=2026-11-23&to=2026-11-23T00:00:00Z",
    "patientId=%FF",
    "patientId=%ZZ",
    "patientId=1%",
    "patientId=1&medication=%4",
    "patientId=1&a=1&b=2&c=3&d=4&e=5&f=6",
]


@pytest.mark.parametrize("text", WRONG)
def test_wrong_parameters_are_refused_without_a_word_of_them(text: str) -> None:
    with pytest.raises(Problem) as error:
        parse_query(text, None)
    assert error.value.status == 422
    for value in ("2026-02-30", "yesterday", "1001", "20261123", "patient=2"):
        assert value not in error.value.detail


def test_parameters_select_usages() -> None:
    query = parse_query(
        "patientId=100&from=2026-11-23&to=2026-11-23T02:00:00.5%2B01:00&medication=a%7B&limit=7"
        "&after=3.4",
        None,
    )
    day = 1_795_392_000_000
    expected = UsageQuery("100", day, day + 3_600_500, "a{", (3, 4), 7)  # type: ignore[arg-type]
    assert query == expected
    assert [query.includes_time(day + ms) for ms in (-1, 0, 3_600_499, 3_600_500)] == [
        False,
        True,
        True,
        False,
    ]
    assert query.describe() == (
        "query?patient={patient}&from=2026-11-23T00:00:00.000Z&to=2026-11-23T01:00:00.500Z"
        "&medication=a%7B"
    )
    assert query.includes(b'{"patientId":100,"medication":"a{","n":1e999}')
    assert not query.includes(b'{"patientId":100,"medication":"A"}')
    assert not query.includes(b'{"patientId":100}')


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00%2B23:00", "9999-12-31T23:59:59.9999-23:00"])
def test_first_and_last_time_can_be_compared(time: str) -> None:
    for name in ("from", "to"):
        assert parse_query(f"patientId=1&{name}={time}", None).describe()


@pytest.mark.parametrize(
    ("patient", "line", "is_included"),
    [
        ("100", b'{"patientId":100}', True),
        ("100", b'{"patientId":"100"}', True),
        ("100", b'{"patientId":"\\u00310\\u0030"}', True),
        ("100", b'{"patientId":1000}', False),
        ("100", b'{"patientId":100.5}', False),
        ("100", b'{"patientId":1e999}', False),
        ("100", b'{"more":{"patientId":100},"patientId":7}', False),
        ("true", b'{"patientId":true}', False),
        ("0", b'{"patientId":-0}', True),
        ('a"b', b'{"patientId":"a\\"b"}', True),
        ("ä", '{"patientId":"ä"}'.encode(), True),
    ],
)
def test_patient_is_found_in_every_spelling(patient: str, line: bytes, is_included: bool) -> None:  # noqa: FBT001
    query = UsageQuery(patient)
    assert query.includes(line) == is_included
    assert query.may_have(line) or not is_included


def test_bound_credential_lists_its_own_patient_only() -> None:
    assert parse_query("", "7").patient == "7"
    assert parse_query("patientId=7", "7").patient == "7"
    with pytest.raises(Problem) as error:
        parse_query("patientId=8", "7")
    assert error.value.status == 403
