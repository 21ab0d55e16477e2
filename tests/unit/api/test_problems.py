"""What is said of an exception: its kind, and never what it holds."""

import json

import pytest
from sanic.exceptions import BadRequest, SanicException, ServiceUnavailable
from structlog.testing import capture_logs

from busyapi import errors
from busyapi.api.problems import STATUSES, map_error
from busyapi.errors import BusyapiError, InvalidRequest, InvalidUsage, Refused, ValidationError
from busyapi.web.problems import Problem, render_problem

SECRET = "zq-secret"


def subclasses(kind: type[BusyapiError]) -> set[type[BusyapiError]]:
    below = {each for each in vars(errors).values() if isinstance(each, type)}
    return {each for each in below if issubclass(each, kind) and each is not kind}


def test_an_unexpected_error_is_500_and_logged_by_kind_and_place() -> None:
    def fail() -> None:
        raise KeyError(SECRET)

    with pytest.raises(KeyError) as caught:
        fail()
    with capture_logs() as logged:
        found = map_error(caught.value)
    assert found.status == 500
    assert SECRET not in str(vars(found))
    (line,) = logged
    assert (line["event"], line["error"]) == ("unexpected_error", "KeyError")
    assert str(line["where"]).startswith(
        "test_an_unexpected_error_is_500_and_logged_by_kind_and_place.<locals>.fail:"
    )
    assert SECRET not in str(logged)


@pytest.mark.parametrize("kind", sorted(subclasses(Refused), key=str))
def test_every_refusal_is_503_not_stored_in_general_words(kind: type[Refused]) -> None:
    found = map_error(kind(f"Redis at {SECRET}:6379"))
    assert (found.status, found.members) == (503, {"stored": "no"})
    assert found.detail == (kind.__doc__ or "").splitlines()[0]
    assert 1 <= int(found.headers["Retry-After"]) <= 5


@pytest.mark.parametrize("kind", sorted(subclasses(InvalidRequest), key=str))
def test_every_bad_usage_has_a_status_of_its_own(kind: type[InvalidRequest]) -> None:
    error = InvalidUsage([ValidationError("/a", "is wrong")]) if kind is InvalidUsage else kind()
    assert map_error(error).status == STATUSES[kind]


def test_what_sanic_says_is_not_passed_on() -> None:
    for error in (BadRequest(SECRET), SanicException(SECRET, status_code=418)):
        found = map_error(error)
        assert found.status == error.status_code
        assert SECRET not in str(vars(found))


def test_a_timeout_of_an_answer_is_of_unknown_outcome() -> None:
    found = map_error(ServiceUnavailable("Response Timeout"))
    assert (found.status, found.members) == (503, {"stored": "unknown"})
    assert "Retry-After" in found.headers


def test_a_client_that_went_away_has_a_title_though_no_standard_names_it() -> None:
    answer = render_problem(Problem(499, "Nobody reads this."))
    assert answer.content_type == "application/problem+json"
    assert json.loads(answer.body or b"")["title"]
