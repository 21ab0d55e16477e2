"""Every read that is answered is in the audit trail, and no patient is."""

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from busyapi.ids import MAX_ID
from testkit.api_client import USAGE, check_problem, check_stored, check_unavailable, send
from testkit.archive.command import run_busyapi
from testkit.audit import read_records, read_resources, verify
from testkit.http1 import Answer, fetch
from testkit.log_leaks import MARK
from testkit.processes import Stack
from testkit.readers import Readers
from testkit.servers import Server
from testkit.stamping import SALT
from testkit.volume import fill_volume, mount_small_volume
from testkit.waiting import wait_until
from tests.conftest import Stacks

TOKEN, DEVICE = "reader-and-writer-77ab21", "device-3f9c0d77ab21"
BEARER = {"authorization": f"Bearer {TOKEN}"}
TABLE = """
[tokens.{name}]
sha256 = "{digest}"
scopes = {scopes}
"""


def make_settings(folder: Path, **settings: str) -> dict[str, str]:
    """Return the settings of a stack that requires a token, so that it has an audit trail."""
    tokens = folder / "tokens"
    tokens.write_text(
        TABLE.format(
            name="clinic-a", digest=sha256(TOKEN.encode()).hexdigest(), scopes=["write", "read"]
        )
        + TABLE.format(
            name="device-7", digest=sha256(DEVICE.encode()).hexdigest(), scopes=["write"]
        )
    )
    return {"BUSYAPI_TOKENS_FILE": str(tokens), **settings}


@pytest.fixture
def stack(stacks: Stacks, valkey: Server, tmp_path: Path) -> Stack:
    """Start a stack with an audit trail."""
    return stacks(valkey, settings=make_settings(tmp_path))


def post(stack: Stack) -> int:
    return check_stored(send(stack.port, USAGE, **BEARER))


def read(stack: Stack, usage: int, **headers: str) -> Answer:
    return fetch(stack.port, f"/api/usages/{usage}", headers={**BEARER, **headers})


def wait_until_archived(stack: Stack, usage: int) -> None:
    (flusher,) = stack.flushers
    wait_until(
        lambda: flusher.read_metric("busyapi_archived_seq") >= usage, "a usage to be archived"
    )


def find_records(stack: Stack, action: str) -> list[dict[str, Any]]:
    return [record for record in read_records(stack.archive) if record["action"] == action]


def test_buffered_and_archived_reads_are_recorded_before_their_answer(stack: Stack) -> None:
    usage = post(stack)
    assert read(stack, usage, **{"x-request-id": "buffered-1"}).status == 200
    wait_until_archived(stack, usage)
    assert read(stack, usage, **{"x-request-id": "archived-1"}).status == 200
    assert read(stack, 1000, **{"x-request-id": "unknown-1"}).status == 404
    records = find_records(stack, "read")
    assert [(r["resource"], r["status"], r["request"]) for r in records] == [
        (f"usage/{usage}", 200, "buffered-1"),
        (f"usage/{usage}", 200, "archived-1"),
        ("usage/1000", 404, "unknown-1"),
    ]
    assert {record["name"] for record in records} == {"clinic-a"}
    assert {record["from"] for record in records} <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert not verify(stack.archive).problems


def test_read_of_a_hidden_usage_is_recorded_as_it_is_answered(
    stacks: Stacks, valkey: Server, tmp_path: Path
) -> None:
    settings = make_settings(tmp_path)
    with Path(settings["BUSYAPI_TOKENS_FILE"]).open("a") as file:
        for name in ("own", "other"):
            digest = sha256(name.encode()).hexdigest()
            file.write(TABLE.format(name=name, digest=digest, scopes=["write", "read:own"]))
    salt = tmp_path / "salt"
    salt.write_bytes(SALT)
    stack = stacks(valkey, settings={**settings, "BUSYAPI_WRITER_SALT_FILE": str(salt)})
    usage = check_stored(send(stack.port, USAGE, authorization="Bearer own"))

    def look() -> list[int]:
        return [
            read(stack, usage, authorization=f"Bearer {name}").status for name in ("own", "other")
        ]

    assert look() == [200, 404]
    wait_until_archived(stack, usage)
    assert look() == [200, 404]
    records = find_records(stack, "read")
    assert [(record["name"], record["status"]) for record in records] == [
        ("own", 200),
        ("other", 404),
    ] * 2
    assert {record["resource"] for record in records} == {f"usage/{usage}"}


def test_trail_holds_no_patient_and_no_token(stack: Stack) -> None:
    usage = post(stack)
    read(stack, usage)
    wait_until_archived(stack, usage)
    read(stack, usage)
    run_busyapi(stack.archive, "archive", "cat", "--patient", USAGE["patientId"])
    files = b"".join(path.read_bytes() for path in (stack.archive / "p00/audit").iterdir())
    assert b"usage/1" in files
    assert b"patient=" in files
    assert MARK.encode() not in files
    assert TOKEN.encode() not in files


def test_list_is_recorded_with_the_digest_of_its_patient_before_its_answer(stack: Stack) -> None:
    usage = post(stack)
    wait_until_archived(stack, usage)
    patient = USAGE["patientId"]
    path = f"/api/usages?patientId={patient}&from=2020-01-01&medication=Albuterol"
    answer = fetch(stack.port, path, headers={**BEARER, "x-request-id": "list-1"})
    assert [item["id"] for item in answer.json()["usages"]] == [usage]
    run_busyapi(stack.archive, "archive", "cat", "--patient", patient)
    (record,) = find_records(stack, "read")
    (export,) = find_records(stack, "export")
    conditions = dict(parse_qsl(record["resource"].removeprefix("query?")))
    assert conditions.pop("patient") == dict(parse_qsl(export["resource"][6:]))["patient"]
    assert conditions == {"from": "2020-01-01T00:00:00.000Z", "medication": "Albuterol"}
    assert (record["name"], record["status"], record["request"]) == ("clinic-a", 200, "list-1")
    files = b"".join(path.read_bytes() for path in (stack.archive / "p00/audit").iterdir())
    assert MARK.encode() not in files
    assert not verify(stack.archive).problems
    # Without its flusher a list cannot be recorded, even if the stream has all that is new.
    (flusher,) = stack.flushers
    after = answer.json()["next"]
    assert flusher.stop() == 0
    newest = post(stack)
    answer = fetch(stack.port, f"{path}&after={after}", headers=BEARER)
    assert "audit trail" in check_unavailable(answer, "no")["detail"]
    flusher.start()
    answer = fetch(stack.port, f"{path}&after={after}", headers=BEARER)
    assert [item["id"] for item in answer.json()["usages"]] == [newest]


def test_refusals_are_recorded_without_delay_for_the_client(stack: Stack) -> None:
    for _ in range(30):
        check_problem(fetch(stack.port, "/api/usages/7"), 401)
    check_problem(send(stack.port, USAGE, authorization="Bearer wrong"), 401)
    wait_until(
        lambda: sum(record.get("count", 1) for record in find_records(stack, "refused")) == 31,
        "all refusals to be recorded",
    )
    records = find_records(stack, "refused")
    assert {(record["resource"], record["status"]) for record in records} == {
        ("usage/7", 401),
        ("usages", 401),
    }
    assert len(records) <= 4


@pytest.mark.faults
@pytest.mark.parametrize(
    ("mode", "usage"),
    [("required", "9" * 600), ("background", "9" * 600), ("required", str(MAX_ID + 1))],
    ids=["required", "background", "after the last id"],
)
def test_refusal_of_an_impossible_id_does_not_stop_the_trail(
    stacks: Stacks, valkey: Server, tmp_path: Path, mode: str, usage: str
) -> None:
    stack = stacks(valkey, settings=make_settings(tmp_path, BUSYAPI_AUDIT=mode))
    stored = post(stack)
    check_problem(fetch(stack.port, f"/api/usages/{usage}"), 401)
    wait_until(lambda: find_records(stack, "refused"), "the refusal to be recorded")
    assert find_records(stack, "refused")[0]["resource"] == "usages"
    assert read(stack, stored).status == 200
    wait_until(lambda: find_records(stack, "read"), "the read to be recorded")
    check_problem(fetch(stack.port, "/api/usages/7"), 401)
    stack.apis[0].stop()
    assert [record["resource"] for record in find_records(stack, "refused")] == [
        "usages",
        "usage/7",
    ]


def test_scan_is_recorded_with_its_first_and_last_id(stack: Stack) -> None:
    for usage in (20, *range(1, 300, 20), 300, 40):
        check_problem(fetch(stack.port, f"/api/usages/{usage}"), 401)
    stack.apis[0].stop()
    records = find_records(stack, "refused")
    assert sum(record.get("count", 1) for record in records) == 18
    ids = [
        int(record[member].removeprefix("usage/"))
        for record in records
        for member in ("resource", "last")
        if member in record
    ]
    assert (min(ids), max(ids)) == (1, 300)


def test_refused_credential_is_named(stack: Stack) -> None:
    refused = fetch(stack.port, "/api/usages/7", headers={"authorization": f"Bearer {DEVICE}"})
    check_problem(refused, 403)
    stack.apis[0].stop()
    (record,) = find_records(stack, "refused")
    assert (record["name"], record["resource"], record["status"]) == ("device-7", "usage/7", 403)


def test_pending_refusals_are_recorded_when_the_api_stops(stack: Stack) -> None:
    check_problem(fetch(stack.port, "/api/usages/7"), 401)
    stack.apis[0].stop()
    assert len(find_records(stack, "refused")) == 1


def test_commands_are_recorded_beside_a_running_flusher(stack: Stack) -> None:
    usage = post(stack)
    wait_until_archived(stack, usage)
    assert read(stack, usage).status == 200
    assert run_busyapi(stack.archive, "archive", "cat", "--from", "2020-01-01") == 0
    assert run_busyapi(stack.archive, "archive", "cat", "--id", str(usage)) == 0
    assert read(stack, usage).status == 200
    assert read_resources(stack.archive) == [
        f"usage/{usage}",
        "query?from=2020-01-01T00:00:00.000Z",
        f"usage/{usage}",
        f"usage/{usage}",
    ]
    for record in find_records(stack, "export"):
        assert record["name"].startswith("os:")
    assert run_busyapi(stack.archive, "audit", "verify") == 0


def test_export_names_the_user_of_the_process_and_not_of_its_environment(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = post(stack)
    wait_until_archived(stack, usage)
    assert read(stack, usage).status == 200
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "someone-else")
    assert run_busyapi(stack.archive, "archive", "cat") == 0
    (record,) = find_records(stack, "export")
    assert record["name"] == f"os:{pwd.getpwuid(os.getuid()).pw_name}"


@pytest.mark.parametrize(("mode", "code"), [("required", 1), ("background", 0)])
def test_export_that_cannot_be_recorded_prints_nothing_if_records_are_required(
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    mode: str,
    code: int,
) -> None:
    usage = post(stack)
    wait_until_archived(stack, usage)
    monkeypatch.setenv("BUSYAPI_AUDIT", mode)
    monkeypatch.setenv("BUSYAPI_FAILPOINTS", "audit-before-write=enospc")
    target = stack.archive.parent / "usages.parquet"
    for command in (["cat"], ["cat", "--id", str(usage)], ["export", str(target)]):
        capfd.readouterr()
        assert run_busyapi(stack.archive, "archive", *command) == code
        out, err = capfd.readouterr()
        assert bool(out) == (code == 0)
        assert ("nothing is read, because the audit trail cannot be written" in err) == bool(code)
    assert target.exists() == (code == 0)


def wait_for_more(readers: Readers, reads: int) -> None:
    target = readers.count_answered() + reads
    wait_until(lambda: readers.count_answered() >= target, f"{reads} reads", seconds=20)


@pytest.mark.faults
def test_kill_of_the_flusher_loses_no_record_of_an_answered_read(stack: Stack) -> None:
    usages = [post(stack) for _ in range(3)]
    wait_until_archived(stack, usages[-1])
    (flusher,) = stack.flushers
    with Readers(stack.port, usages, BEARER) as readers:
        for _ in range(4):
            wait_for_more(readers, 25)
            flusher.kill9()
            flusher.start()
        wait_for_more(readers, 25)
    answered = {read.request_id for read in readers.reads if read.status == 200}
    recorded = {record["request"] for record in find_records(stack, "read")}
    assert len(answered) > 100
    assert answered <= recorded
    assert readers.count_answered(503) > 0
    assert not verify(stack.archive).problems


def test_a_trail_that_the_flusher_does_not_sync_fails_that_check(stack: Stack) -> None:
    """The check of the test above can fail: here a record of an answered read is removed."""
    usage = post(stack)
    read(stack, usage, **{"x-request-id": "gone"})
    (path,) = (stack.archive / "p00/audit").glob("*.ndjson")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert "gone" not in {record["request"] for record in find_records(stack, "read")}
    assert [problem.kind for problem in verify(stack.archive).problems] == ["cut off"]


@contextmanager
def failing_disk(stack: Stack, failpoint: str) -> Iterator[None]:
    """Make each write of the trail fail, until the flusher is restarted at the end."""
    (flusher,) = stack.flushers
    flusher.stop()
    flusher.environment["BUSYAPI_FAILPOINTS"] = failpoint
    flusher.start()
    yield
    del flusher.environment["BUSYAPI_FAILPOINTS"]
    flusher.restart()


@pytest.mark.faults
@pytest.mark.parametrize("failpoint", ["audit-before-write=enospc", "audit-after-write=eio"])
def test_failing_audit_disk_refuses_reads_and_no_writes(stack: Stack, failpoint: str) -> None:
    usage = post(stack)
    wait_until_archived(stack, usage)
    (flusher,), (api,) = stack.flushers, stack.apis
    with failing_disk(stack, failpoint):
        check_unavailable(read(stack, usage), "no")
        buffered = post(stack)
        check_unavailable(read(stack, buffered), "no")
        wait_until_archived(stack, buffered)
        assert flusher.read_metric("busyapi_audit_failing") == 1
        assert api.read_metric("busyapi_refused_total", reason="AuditUnavailable") == 2
        assert '"audit_failed"' in flusher.log.read_text()
    assert read(stack, usage).status == 200
    assert flusher.read_metric("busyapi_audit_failing") == 0
    assert len(find_records(stack, "read")) == 1


@pytest.mark.faults
def test_full_volume_refuses_reads_and_no_writes_until_it_has_space(
    stacks: Stacks, valkey: Server, tmp_path: Path
) -> None:
    volume = tmp_path / "stack-0" / "archive"
    with mount_small_volume(volume, "4m"):
        stack = stacks(valkey, settings=make_settings(tmp_path))
        try:
            usage = post(stack)
            assert read(stack, usage).status == 200
            ballast = fill_volume(volume)
            check_unavailable(read(stack, usage), "no")
            post(stack)
            (flusher,) = stack.flushers
            assert flusher.read_metric("busyapi_audit_failing") == 1
            ballast.unlink()
            wait_until(
                lambda: flusher.read_metric("busyapi_audit_failing") == 0,
                "the trail to be written again without any read",
            )
            assert read(stack, usage).status == 200
            assert find_records(stack, "resume")[0]["failed"] == 1
            assert not verify(stack.archive).problems
        finally:
            stack.close()


def test_with_background_reads_do_not_wait_for_the_trail(
    stacks: Stacks, valkey: Server, tmp_path: Path
) -> None:
    stack = stacks(valkey, settings=make_settings(tmp_path, BUSYAPI_AUDIT="background"))
    usage = post(stack)
    with failing_disk(stack, "audit-before-write=enospc"):
        wait_until_archived(stack, usage)
        assert read(stack, usage, **{"x-request-id": "kept"}).status == 200
    wait_until(lambda: find_records(stack, "read"), "the read to be recorded")
    assert find_records(stack, "read")[0]["request"] == "kept"


def test_without_credentials_nothing_is_recorded(stacks: Stacks, valkey: Server) -> None:
    stack = stacks(valkey)
    usage = check_stored(send(stack.port, USAGE))
    assert fetch(stack.port, f"/api/usages/{usage}").status == 200
    wait_until_archived(stack, usage)
    assert run_busyapi(stack.archive, "archive", "cat") == 0
    assert not (stack.archive / "p00/audit").exists()


def test_read_is_refused_by_a_flusher_that_records_nothing(stack: Stack) -> None:
    """An older flusher ignores the entry in the header: its answer must not be passed on."""
    usage = post(stack)
    wait_until_archived(stack, usage)
    script = (
        "from http.server import *\n"
        "class Old(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.send_header('Content-Length', '2')\n"
        "        self.end_headers(); self.wfile.write(b'{}')\n"
        "server = HTTPServer(('127.0.0.1', 0), Old)\n"
        "print(server.server_port, flush=True); server.serve_forever()\n"
    )
    (api,) = stack.apis
    old = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert old.stdout
        api.environment["BUSYAPI_FLUSHER_URLS"] = f"http://127.0.0.1:{old.stdout.readline()}"
        api.restart()
        check_unavailable(read(stack, usage), "no")
    finally:
        old.kill()
        old.wait()
