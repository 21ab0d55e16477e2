"""The problem document of an exception: its kind, and never its content."""

import json

import pytest
from sanic.exceptions import BadRequest, SanicException, ServiceUnavailable
from structlog.testing import capture_logs

from busyapi import errors
from busyapi.api import problems
from busyapi.api.problems import STATUSES, map_error
from busyapi.errors import (
    BusyapiError,
    InvalidRequest,
    InvalidUsage,
    RedisUnavailable,
    Refused,
    ValidationError,
)
from busyapi.web.problems import Problem, render_problem

SECRET = "zq-secret"


def find_subclasses(kind: type[BusyapiError]) -> set[type[BusyapiError]]:
    classes = {value for value in vars(errors).values() if isinstance(value, type)}
    return {value for value in classes if issubclass(value, kind) and value is not kind}


def test_an_unexpected_error_is_500_and_logged_by_kind_and_place() -> None:
    def fail() -> None:
        raise KeyError(SECRET)

    with pytest.raises(KeyError) as caught:
        fail()
    with capture_logs() as logs:
        problem = map_error(caught.value)
    assert problem.status == 500
    assert SECRET not in str(vars(problem))
    (entry,) = logs
    assert (entry["event"], entry["error"]) == ("unexpected_error", "KeyError")
    assert str(entry["where"]).startswith(
        "test_an_unexpected_error_is_500_and_logged_by_kind_and_place.<locals>.fail:"
    )
    assert SECRET not in str(logs)


@pytest.mark.parametrize("kind", sorted(find_subclasses(Refused), key=str))
def test_every_refusal_is_503_not_stored_in_general_words(kind: type[Refused]) -> None:
    problem = map_error(kind(f"Redis at {SECRET}:6379"))
    assert (problem.status, problem.members) == (503, {"stored": "no"})
    assert problem.detail == (kind.__doc__ or "").splitlines()[0]
    assert 1 <= int(problem.headers["Retry-After"]) <= 5


@pytest.mark.parametrize("kind", sorted(find_subclasses(InvalidRequest), key=str))
def test_every_invalid_request_has_its_status(kind: type[InvalidRequest]) -> None:
    error = InvalidUsage([ValidationError("/a", "is wrong")]) if kind is InvalidUsage else kind()
    assert map_error(error).status == STATUSES[kind]


def test_the_texts_of_sanic_are_not_returned() -> None:
    for error in (BadRequest(SECRET), SanicException(SECRET, status_code=418)):
        problem = map_error(error)
        assert problem.status == error.status_code
        assert SECRET not in str(vars(problem))


def test_a_response_timeout_has_an_unknown_outcome() -> None:
    problem = map_error(ServiceUnavailable("Response Timeout"))
    assert (problem.status, problem.members) == (503, {"stored": "unknown"})
    assert "Retry-After" in problem.headers


def test_refused_reads_and_writes_are_logged_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "_logged", {})
    with capture_logs() as logs:
        for _ in range(2):
            map_error(RedisUnavailable(), "a", is_read=True)
            map_error(RedisUnavailable(), "b")
    fields = {"reason": "RedisUnavailable", "requests": 1, "log_level": "warning"}
    assert logs == [
        {"event": "read_rejected", "request_id": "a", **fields},
        {"event": "write_rejected", "request_id": "b", "stored": "no", **fields},
    ]


def test_499_has_a_title_although_no_standard_defines_it() -> None:
    response = render_problem(Problem(499, "No client reads this."))
    assert response.content_type == "application/problem+json"
    assert json.loads(response.body or b"")["title"]
