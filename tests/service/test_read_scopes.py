"""The scopes read:own and read:tenant: who sees which usage, in the buffer and in the archive."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from busyapi.settings import SWITCH
from testkit import mutants
from testkit.api_client import BODY, USAGE, check_problem, check_stored, send
from testkit.broken_build import broken_build
from testkit.http1 import Answer, fetch
from testkit.ports import reserve_port
from testkit.processes import Api, Stack
from testkit.servers import Server
from tests.conftest import Stacks

BATCH = "/api/usages/batch"
PATIENT = USAGE["patientId"]
CREDENTIALS = {
    "device": ('["write", "read:own"]', "north"),
    "neighbour": ('["write", "read:own", "read:tenant"]', "north"),
    "stranger": ('["write", "read:own", "read:tenant"]', "south"),
    "single": ('["write", "read:own", "read:tenant"]', ""),
    "clinic": ('["read:tenant"]', "north"),
    "doctor": ('["read"]', ""),
    "sender": ('["write"]', "north"),
    "patient": ('["read"]', ""),
    "other-patient": ('["read", "read:own", "read:tenant"]', "north"),
}
"""Scopes and tenant of each credential."""
PATIENTS = {"patient": PATIENT, "other-patient": "another"}
"""The patients that credentials are bound to."""
READERS = ("device", "neighbour", "stranger", "single", "clinic", "doctor", *PATIENTS)
VISIBLE = {
    "device": {"device", "neighbour", "clinic", "doctor", "patient"},
    "neighbour": {"neighbour", "clinic", "doctor", "patient"},
    "stranger": {"stranger", "doctor", "patient"},
    "single": {"single", "doctor", "patient"},
    "nobody": {"doctor", "patient"},
}
"""By the poster of a usage: the readers that may see it."""


def token_of(name: str) -> str:
    return f"token-of-{name}"


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token_of(name)}"}


def post(port: int, name: str, body: object = BODY, path: str = "/api/usages") -> Answer:
    return send(port, body, path, **bearer(name))


def read(port: int, name: str, usage_id: int) -> Answer:
    return fetch(port, f"/api/usages/{usage_id}", headers=bearer(name))


class Guarded(NamedTuple):
    """A stack without authentication, and an API process on it with credentials and a salt."""

    stack: Stack
    api: Api
    salt: Path

    @property
    def port(self) -> int:
        return self.api.port


def start_guarded(stack: Stack, folder: Path, **settings: str) -> Api:
    tokens = folder / "tokens.toml"
    tables = []
    for name, (scopes, tenant) in CREDENTIALS.items():
        digest = hashlib.sha256(token_of(name).encode()).hexdigest()
        table = f'[tokens.{name}]\nsha256 = "{digest}"\nscopes = {scopes}\n'
        table += f'tenant = "{tenant}"\n' if tenant else ""
        table += f'patient_id = "{PATIENTS[name]}"\n' if name in PATIENTS else ""
        tables.append(table)
    tokens.write_text("\n".join(tables))
    port = reserve_port()
    environment = {
        **stack.apis[0].environment,
        "BUSYAPI_TOKENS_FILE": str(tokens),
        "BUSYAPI_AUDIT": "off",  # buffered usages are read while the flusher is stopped
        **settings,
    }
    return Api(folder, f"api-{port}", port, environment)


@pytest.fixture(params=SWITCH)
def guarded(
    request: pytest.FixtureRequest, stacks: Stacks, valkey: Server, tmp_path: Path
) -> Iterator[Guarded]:
    stack = stacks(valkey, settings={"BUSYAPI_FAST_PATH": request.param})
    salt = tmp_path / "salt"
    salt.write_text("0123456789abcdef" * 4)
    with start_guarded(stack, tmp_path, BUSYAPI_WRITER_SALT_FILE=str(salt)) as api:
        yield Guarded(stack, api, salt)


def test_each_scope_sees_its_usages_in_the_buffer_and_in_the_archive(guarded: Guarded) -> None:
    stack, port = guarded.stack, guarded.port
    flusher = stack.flushers[0]
    assert flusher.stop() == 0
    posters: dict[int, str] = {check_stored(send(stack.port, USAGE)): "nobody"}
    for name in VISIBLE.keys() - {"nobody"}:
        for _ in range(3):  # the fast path accepts a credential from the second time on
            posters[check_stored(post(port, name))] = name
        for usage_id in post(port, name, [USAGE] * 2, BATCH).json()["ids"]:
            posters[usage_id] = name
    missing = check_problem(read(port, "device", max(posters) + 1), 404)
    expected = {
        (usage_id, reader): reader in VISIBLE[poster]
        for usage_id, poster in posters.items()
        for reader in READERS
    }

    def look() -> dict[tuple[int, str], bool]:
        seen = {}
        for usage_id, reader in expected:
            answer = read(port, reader, usage_id)
            seen[usage_id, reader] = answer.status == 200
            if answer.status == 200:
                assert list(answer.json()) == ["id", "receivedAt", "usage"]
                assert answer.json()["usage"] == USAGE
            else:
                assert check_problem(answer, 404) == missing
        return seen

    assert look() == expected
    flusher.start()
    stack.wait_until_archived()
    assert look() == expected
    # To these, an id that was never issued looks the same in the archive.
    for name in ("single", "patient"):
        assert check_problem(read(port, name, max(posters) + 1), 404) == missing


def read_list(port: int, name: str, patient: str = PATIENT, limit: int = 100) -> list[list[int]]:
    """Return the ids of each page."""
    pages, after = [], "0"
    while True:
        path = f"/api/usages?patientId={patient}&limit={limit}&after={after}"
        answer = fetch(port, path, headers=bearer(name))
        assert answer.status == 200, answer
        page = answer.json()
        assert b"writer" not in answer.body
        assert b"tenant" not in answer.body
        assert {usage["usage"]["patientId"] for usage in page["usages"]} <= {patient}
        pages.append([usage["id"] for usage in page["usages"]])
        after = page["next"]
        if not page["more"]:
            return pages


@pytest.mark.parametrize("guarded", ["on"], indirect=True)
def test_a_list_has_what_its_reader_may_see_and_reveals_nothing_else(guarded: Guarded) -> None:
    stack, port = guarded.stack, guarded.port
    flusher = stack.flushers[0]
    assert flusher.stop() == 0
    posters: dict[int, str] = {check_stored(send(stack.port, USAGE)): "nobody"}
    for name in VISIBLE.keys() - {"nobody"}:
        for usage_id in post(port, name, [USAGE, USAGE | {"patientId": "p"}] * 2, BATCH).json()[
            "ids"
        ][::2]:
            posters[usage_id] = name
    readers = [name for name in READERS if name != "other-patient"]

    def look() -> None:
        for reader in readers:
            expected = sorted(i for i, poster in posters.items() if reader in VISIBLE[poster])
            assert read_list(port, reader) == [expected]
            # With a page for each, a page that another's usage ended would be empty.
            pages = read_list(port, reader, limit=1)
            assert [page for page in pages if page] == [[i] for i in expected]
            assert len(pages) <= len(expected) + 1
        assert read_list(port, "other-patient", "another") == [[]]
        path = f"/api/usages?patientId={PATIENT}"
        check_problem(fetch(port, path, headers=bearer("other-patient")), 403)
        check_problem(fetch(port, path, headers=bearer("sender")), 403)
        check_problem(fetch(port, path), 401)

    look()
    flusher.start()
    stack.wait_until_archived()
    look()


def test_writer_without_a_scope_to_read_sees_nothing_and_counts_need_read(
    guarded: Guarded,
) -> None:
    usage_id = check_stored(post(guarded.port, "sender"))
    check_problem(read(guarded.port, "sender", usage_id), 403)
    check_problem(fetch(guarded.port, f"/api/usages/{usage_id}"), 401)
    for name in READERS:
        answer = fetch(guarded.port, "/api/usages/count", headers=bearer(name))
        assert answer.status == (200 if name == "doctor" else 403)


def test_usages_posted_before_the_salt_or_with_another_one_are_not_found_by_their_writer(
    guarded: Guarded, tmp_path: Path
) -> None:
    stack = guarded.stack
    with start_guarded(stack, tmp_path) as unsalted:
        before = check_stored(post(unsalted.port, "device"))
    stamped = check_stored(post(guarded.port, "device"))
    assert read(guarded.port, "device", before).status == 404
    assert read(guarded.port, "device", stamped).status == 200
    other = tmp_path / "other-salt"
    other.write_text("f" * 64)
    with start_guarded(stack, tmp_path, BUSYAPI_WRITER_SALT_FILE=str(other)) as resalted:
        assert read(resalted.port, "device", stamped).status == 404
        assert read(resalted.port, "clinic", stamped).status == 200
        assert read(resalted.port, "doctor", stamped).status == 200
    with start_guarded(stack, tmp_path) as unsalted:
        assert read(unsalted.port, "device", stamped).status == 404
        assert read(unsalted.port, "clinic", stamped).status == 200


def test_retry_with_an_idempotency_key_has_the_same_id_with_and_without_stamps(
    guarded: Guarded, tmp_path: Path
) -> None:
    def retry(port: int, key: str) -> tuple[int, str | None]:
        answer = send(port, BODY, **bearer("device"), idempotency_key=key)
        return check_stored(answer), answer.headers.get("idempotency-replayed")

    # Forked from one server, the processes of a test give their requests the same tokens.
    retry(guarded.port, "none")
    with start_guarded(guarded.stack, tmp_path) as unsalted:
        plain, replayed = retry(unsalted.port, "one")
        assert replayed is None
        assert retry(guarded.port, "one") == (plain, "true")
        stamped, replayed = retry(guarded.port, "two")
        assert replayed is None
        assert retry(unsalted.port, "two") == retry(guarded.port, "two") == (stamped, "true")
    # A usage has the stamp of its first post.
    assert read(guarded.port, "device", plain).status == 404
    assert read(guarded.port, "device", stamped).status == 200


@pytest.mark.mutants
def test_fast_path_that_forgets_stamps_is_found(
    stacks: Stacks, valkey: Server, tmp_path: Path
) -> None:
    stack = stacks(valkey)
    salt = tmp_path / "salt"
    salt.write_text("0123456789abcdef" * 4)
    broken = broken_build(mutants.forget_stamps)
    with start_guarded(stack, tmp_path, BUSYAPI_WRITER_SALT_FILE=str(salt), **broken) as api:
        # The route verifies the credential of the first, and again after a reload of the
        # credentials. The fast path takes the others.
        ids = [check_stored(post(api.port, "device")) for _ in range(10)]
        statuses = [read(api.port, "device", usage_id).status for usage_id in ids]
        assert statuses[0] == 200
        assert 404 in statuses


def test_short_salt_is_exit_code_2(guarded: Guarded, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_text("too short")
    api = start_guarded(guarded.stack, tmp_path, BUSYAPI_WRITER_SALT_FILE=str(path))
    api.spawn()
    assert api.wait(20) == 2
    assert "BUSYAPI_WRITER_SALT_FILE must hold at least 32 bytes" in api.tail()
    assert "too short" not in api.tail()
