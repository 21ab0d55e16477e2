"""The file of credentials: scopes, expiry, the bound patient, and reloading."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from testkit.api_client import (
    BODY,
    USAGE,
    RawConnection,
    check_nothing_stored,
    check_problem,
    check_stored,
    render_request,
    send,
)
from testkit.http1 import Answer, fetch
from testkit.processes import Api, Stack
from testkit.waiting import wait_until
from tests.service.conftest import StartApi

BATCH = "/api/usages/batch"
PATIENT = USAGE["patientId"]
FORM = "application/x-www-form-urlencoded"


def render_entries(entries: dict[str, dict[str, Any]]) -> str:
    """Return a file in which each name is also the token."""
    return "\n".join(
        "\n".join(
            [
                f"[tokens.{name}]",
                f'sha256 = "{sha256(name.encode()).hexdigest()}"',
                *(f"{member} = {_render(value)}" for member, value in entry.items()),
            ]
        )
        for name, entry in entries.items()
    )


def _render(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else json.dumps(value)


Entry = dict[str, Any]
WRITE: Entry = {"scopes": ["write"]}
READ: Entry = {"scopes": ["read"]}
ENTRIES: dict[str, Entry] = {
    "writer": WRITE,
    "reader": READ,
    "both": {"scopes": ["write", "read"]},
    "later": {"scopes": ["erase", "admin"]},
    "bound": {**WRITE, "patient_id": PATIENT},
    "number": {**WRITE, "patient_id": "700"},
    "gone": {**WRITE, "expires": datetime(2020, 1, 1, tzinfo=UTC)},
}


def post(api: Api, token: str, body: Any = USAGE, path: str = "/api/usages", **more: str) -> Answer:
    """Post with a token."""
    return send(api.port, body, path, authorization=f"Bearer {token}", **more)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    path.write_text(render_entries(ENTRIES))
    return path


@pytest.fixture(scope="module")
def guarded(start_api: StartApi, tokens: Path) -> Api:
    return start_api(BUSYAPI_TOKENS_FILE=str(tokens))


def statuses_of(api: Api, token: str, number: int) -> tuple[int, int, int, int]:
    """Return the statuses of a post, a batch, a lookup and a count."""
    header = {"authorization": f"Bearer {token}"}
    return (
        post(api, token).status,
        post(api, token, [USAGE], BATCH).status,
        fetch(api.port, f"/api/usages/{number}", headers=header).status,
        fetch(api.port, "/api/usages/count", headers=header).status,
    )


def test_each_scope_allows_what_it_says(contract: Stack, guarded: Api) -> None:
    number = check_stored(send(contract.port, USAGE))
    for _ in range(2):  # the second time the credentials are remembered
        for token, statuses in {
            "writer": (201, 201, 403, 403),
            "reader": (403, 403, 200, 200),
            "both": (201, 201, 200, 200),
            "later": (403, 403, 403, 403),
            "gone": (401, 401, 401, 401),
        }.items():
            assert statuses_of(guarded, token, number) == statuses, token


def test_without_a_token_only_the_scopes_of_the_setting_are_allowed(
    contract: Stack, start_api: StartApi, tokens: Path
) -> None:
    number = check_stored(send(contract.port, USAGE))
    open_to_writers = start_api(BUSYAPI_TOKENS_FILE=str(tokens), BUSYAPI_ANONYMOUS="write")
    for _ in range(2):
        check_stored(send(open_to_writers.port, USAGE))
        check_problem(fetch(open_to_writers.port, f"/api/usages/{number}"), 401)
        assert statuses_of(open_to_writers, "reader", number) == (403, 403, 200, 200)
        check_problem(post(open_to_writers, "unknown"), 401)


def test_reading_can_be_off_without_any_token(contract: Stack, start_api: StartApi) -> None:
    number = check_stored(send(contract.port, USAGE))
    closed = start_api(BUSYAPI_ANONYMOUS="write")
    check_stored(send(closed.port, USAGE))
    for path in (f"/api/usages/{number}", "/api/usages/count"):
        check_problem(fetch(closed.port, path), 401)
        # Without credentials none is valid, and none is needed to write.
        check_problem(fetch(closed.port, path, headers={"authorization": "Bearer any"}), 401)
    check_stored(post(closed, "any"))


class TestBoundPatient:
    """A credential with a patient_id may send usages of that patient only."""

    def test_its_own_patient_is_accepted_in_every_form(self, guarded: Api) -> None:
        for _ in range(2):
            check_stored(post(guarded, "bound"))
        assert post(guarded, "bound", [USAGE, USAGE], BATCH).status == 201
        ndjson = BODY + b"\n" + BODY
        answer = post(guarded, "bound", ndjson, BATCH, content_type="application/x-ndjson")
        assert answer.status == 201
        form = f"patientId={PATIENT}&medication=a&timestamp=2016-11-01T00:00:00Z".encode()
        check_stored(post(guarded, "bound", form, content_type=FORM))

    def test_a_number_is_the_text_of_its_digits(self, guarded: Api) -> None:
        for patient in (700, "700"):
            check_stored(post(guarded, "number", USAGE | {"patientId": patient}))
        check_problem(post(guarded, "number", USAGE | {"patientId": 7000}), 403)

    @pytest.mark.parametrize(
        "other",
        [
            USAGE | {"patientId": "other-patient"},
            USAGE | {"patientId": PATIENT.upper()},
            USAGE | {"patientId": f"{PATIENT} "},
            USAGE | {"patientId": 700},
            json.dumps(USAGE).encode()[:-1] + b',"patientId":"other-patient"}',
        ],
    )
    def test_another_patient_is_403_and_nothing_is_stored(
        self, contract: Stack, guarded: Api, other: Any
    ) -> None:
        check_stored(post(guarded, "bound"))
        with check_nothing_stored(contract.port):
            answer = post(guarded, "bound", other)
            keyed = post(guarded, "bound", other, idempotency_key="a-key")
            check_problem(keyed, 403)
        problem = check_problem(answer, 403)
        assert [error["pointer"] for error in problem["errors"]] == ["/patientId"]
        assert b"patient-" not in answer.body
        assert PATIENT.encode() not in answer.body

    def test_a_form_of_another_patient_is_403(self, contract: Stack, guarded: Api) -> None:
        form = b"patientId=other&medication=a&timestamp=2016-11-01T00:00:00Z"
        with check_nothing_stored(contract.port):
            check_problem(post(guarded, "bound", form, content_type=FORM), 403)

    def test_one_usage_of_another_patient_refuses_a_batch(
        self, contract: Stack, guarded: Api
    ) -> None:
        other = USAGE | {"patientId": "other"}
        with check_nothing_stored(contract.port):
            answer = post(guarded, "bound", [*[USAGE] * 300, other, USAGE, other], BATCH)
            many = post(guarded, "bound", [other] * 2000, BATCH)
        pointers = [error["pointer"] for error in check_problem(answer, 403)["errors"]]
        assert pointers == ["/300/patientId", "/302/patientId"]
        assert len(check_problem(many, 403)["errors"]) == 100

    def test_without_validation_a_usage_without_a_patient_is_another_patients(
        self, contract: Stack, start_api: StartApi, tokens: Path
    ) -> None:
        lenient = start_api(BUSYAPI_TOKENS_FILE=str(tokens), BUSYAPI_VALIDATION="lenient")
        check_stored(post(lenient, "bound", {"patientId": PATIENT}))
        with check_nothing_stored(contract.port):
            for body in ({}, {"patientId": None}, {"patientId": [PATIENT]}, {"PatientId": PATIENT}):
                check_problem(post(lenient, "bound", body), 403)
            assert post(lenient, "bound", [{"patientId": PATIENT}, {}], BATCH).status == 403


@pytest.mark.faults
class TestReload:
    """The file is read again when its content changes."""

    @staticmethod
    def wait_for_reload(api: Api) -> None:
        wait_until(lambda: b'"credentials_reloaded"' in api.log.read_bytes(), "the reload")

    def test_tokens_are_added_and_revoked_while_the_process_runs(
        self, start_api: StartApi, tmp_path: Path
    ) -> None:
        path = tmp_path / "tokens"
        path.write_text(render_entries({"old": WRITE, "stays": WRITE}))
        api = start_api(BUSYAPI_TOKENS_FILE=str(path))
        self.check_changes(api, path, ("old", "stays"), "new")

    def check_changes(self, api: Api, path: Path, before: Iterable[str], added: str) -> None:
        """Replace the first token by another, with an open connection that uses it."""
        revoked, stays = before
        for token in before:
            assert [post(api, token).status for _ in range(2)] == [201, 201]
        request = render_request(
            "POST", "/api/usages", BODY, headers=(f"Authorization: Bearer {revoked}",)
        )
        with RawConnection(api.port) as device:
            device.send(request)
            assert device.read_answer().status == 201
            path.write_text(render_entries({added: WRITE, stays: WRITE}))
            self.wait_for_reload(api)
            device.send(request)
            assert device.read_answer().status == 401
        assert [post(api, token).status for token in (stays, added)] == [201, 201]

    def test_a_bad_file_keeps_the_credentials_and_is_logged_and_counted(
        self, start_api: StartApi, tmp_path: Path
    ) -> None:
        path = tmp_path / "tokens"
        path.write_text(render_entries({"old": WRITE}))
        api = start_api(BUSYAPI_TOKENS_FILE=str(path))
        path.write_text(render_entries({"new": WRITE}) + "\nscopes = secret")
        failures = "busyapi_credential_reload_failures_total"
        wait_until(lambda: api.read_metric(failures, source="file") > 0, "the failure")
        assert post(api, "old").status == 201
        assert post(api, "new").status == 401
        log = api.log.read_text()
        assert "credentials_not_reloaded" in log
        assert "secret" not in log
        path.write_text(render_entries({"new": WRITE}))
        self.wait_for_reload(api)
        assert [post(api, token).status for token in ("new", "old")] == [201, 401]
