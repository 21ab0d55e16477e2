"""Logs: events in JSON, no line for a request, and no part of a request."""

import contextlib
import gzip
import json
import os
import pty
import socket
import struct
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from functools import partial
from time import monotonic
from urllib.parse import quote

import pytest

from busyapi.telemetry.logs import REPEAT_SECONDS
from testkit.api_client import (
    BODY,
    USAGE,
    RawConnection,
    check_stored,
    check_unavailable,
    render_request,
    send,
)
from testkit.child_process import Child
from testkit.http1 import Answer, fetch
from testkit.log_leaks import MARK
from testkit.processes import Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks

MARKER = f"{MARK}{uuid.uuid4().hex}"
HOST = "Host: a\r\n"
USAGES, BATCH = "/api/usages", "/api/usages/batch"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The Valkey of the tests here."""
    with Server(tmp_path_factory.mktemp("logs") / "valkey") as server:
        yield server


@pytest.fixture(scope="module")
def stack(store: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that logs at debug level and has short deadlines."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(f"write,read good{MARKER}\nwrite dumb{MARKER}\n")
    settings = {
        "BUSYAPI_LOG_LEVEL": "debug",
        "BUSYAPI_REQUEST_DEADLINE": "2",
        "BUSYAPI_COMMIT_DEADLINE": "5",
        "BUSYAPI_TOKENS_FILE": str(tokens),
    }
    with Stack(tmp_path_factory.mktemp("logs"), store, settings=settings) as running:
        running.read_headers = {"authorization": f"Bearer good{MARKER}"}
        yield running


def post(stack: Stack, body: object, path: str = USAGES, **headers: str) -> Answer:
    """Post with a good token and the marker in the query string."""
    token = {"authorization": f"Bearer good{MARKER}"}
    return send(stack.port, body, f"{path}?{MARKER}={MARKER}", **(token | headers))


def send_accepted(stack: Stack) -> Iterator[Answer]:
    """Send accepted requests with the marker wherever it is allowed."""
    marked = {
        "patientId": MARKER,
        "timestamp": f"Tue Nov 01 2016 09:11:51 GMT-0500 ({MARKER})",
        "medication": f"{MARKER} \n\u2028",
        MARKER: {MARKER: [MARKER]},
    }
    yield post(stack, marked)
    yield post(stack, [marked] * 3, BATCH, idempotency_key=f"batch-{MARKER}")
    for _ in range(2):
        yield post(stack, marked, idempotency_key=MARKER)
    yield post(stack, gzip.compress(json.dumps(marked).encode()), content_encoding="gzip")
    form = f"patientId={MARKER}&timestamp=2016-11-01T00:00:00Z&medication={MARKER}"
    yield post(stack, form.encode(), content_type="application/x-www-form-urlencoded")


def send_refused(stack: Stack) -> Iterator[Answer]:
    """Send refused requests with the marker wherever it is possible.

    The marker is not the name of a refused member, because pointers contain those names.
    """
    yield post(stack, {"patientId": [MARKER], "timestamp": MARKER, "medication": {MARKER: 1}})
    yield post(stack, USAGE | {"timestamp": MARKER, "patientId": MARKER * 10})
    yield post(stack, [USAGE, MARKER, {"medication": MARKER}], BATCH)
    yield post(stack, USAGE, idempotency_key=MARKER)  # used with another body
    for body in (f'{{"a":"{MARKER}'.encode(), b'{"\xff":"' + MARKER.encode() + b'"}'):
        for path in (USAGES, BATCH):
            yield post(stack, body, path)
    yield post(stack, MARKER.encode(), content_type=f"text/{MARKER}")
    yield post(stack, BODY, content_encoding=MARKER)
    yield post(stack, MARKER.encode(), content_encoding="gzip")
    yield post(stack, BODY, idempotency_key=f"two {MARKER}")
    yield post(stack, USAGE | {"more": MARKER * 5000})
    yield send(stack.port, USAGE, authorization=f"Bearer {MARKER}")
    yield send(stack.port, USAGE, authorization=f"Basic {MARKER}")
    for path in (f"/{MARKER}", f"/api/usages/{MARKER}", f"/api/usages/1/{MARKER}"):
        yield fetch(stack.port, path, headers={"authorization": f"Bearer good{MARKER}"})
    yield fetch(stack.port, "/api/usages/1", headers={"authorization": f"Bearer dumb{MARKER}"})
    yield fetch(stack.port, "/", method=MARKER)
    for broken in (
        MARKER.encode() + b"\r\n\r\n",
        f"GET http://{MARKER}:{MARKER}/ HTTP/1.1\r\n{HOST}\r\n".encode(),
        f"GET / HTTP/1.1\r\n{HOST}{MARKER}\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\n{HOST}X: {MARKER * 300}\r\n\r\n".encode(),
        f"POST {USAGES} HTTP/1.1\r\n{HOST}Content-Length: {MARKER}\r\n\r\n".encode(),
        f"POST {USAGES} HTTP/1.1\r\n{HOST}Content-Length: 99\r\nExpect: {MARKER}\r\n\r\n".encode(),
        f"POST {USAGES} HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{MARKER}\r\n".encode(),
        f"POST {USAGES}?{MARKER} HTTP/1.1\r\n{HOST}Content-Length: 99\r\n\r\n{MARKER}".encode(),
        f"POST {USAGES}?{MARKER} HTTP/1.1\r\n{HOST}X: {MARKER}".encode(),
    ):
        with RawConnection(stack.port) as device:
            device.send(broken)
            yield device.read_answer()


def hang_up(stack: Stack) -> None:
    """Send the marker and hang up before the header, the body and the answer are complete."""
    message = render_request(
        "POST", f"/api/usages?{MARKER}", json.dumps({"patientId": MARKER}).encode()
    )
    for part in (message[:40], message[:-5], message):
        with RawConnection(stack.port) as device:
            device.send(part)
    for _ in range(3):
        with contextlib.closing(socket.create_connection(("127.0.0.1", stack.port))) as connection:
            connection.sendall(message)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_log(child: Child) -> list[dict[str, object]]:
    """Read the log of a process, in which every line is JSON."""
    return [json.loads(line) for line in child.log.read_text().splitlines()]


def test_every_line_is_an_event_with_a_time_and_a_level(stack: Stack) -> None:
    for process, role in ((stack.apis[0], "api"), (stack.flushers[0], "flusher")):
        logged = read_log(process)
        assert logged
        for line in logged:
            assert {"time", "level", "event", "role", "pod"} <= line.keys(), line
            assert line["role"] == role
            assert line["pod"] == socket.gethostname()
            assert line["level"] in {"debug", "info", "warning", "error"}
            assert str(line["event"]).isidentifier(), line
        times = [str(line["time"]) for line in logged]
        assert times == sorted(times)
    assert "api_started" in {line["event"] for line in read_log(stack.apis[0])}
    assert "partition_seeded" in {line["event"] for line in read_log(stack.flushers[0])}
    assert {line["partition"] for line in read_log(stack.flushers[0])} == {0}


def test_there_is_no_line_for_a_request(stack: Stack) -> None:
    before = [len(read_log(process)) for process in stack.processes]
    for _ in range(5):
        list(send_accepted(stack))
        hang_up(stack)
    for _ in range(2):
        list(send_refused(stack))
    stack.wait_until_archived()
    assert [len(read_log(process)) for process in stack.processes] == before


def test_an_aborted_scrape_is_not_logged(stack: Stack) -> None:
    before = [process.log.read_bytes() for process in stack.processes]
    for process in stack.processes:
        for _ in range(4):  # more would not fit into the queue of prometheus_client's server
            with RawConnection(process.scrape_port) as scraper:
                scraper.send(render_request("GET", f"/metrics?{MARKER}"))
                reset = struct.pack("ii", 1, 0)
                scraper._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        with RawConnection(process.scrape_port) as scraper:
            scraper.send(MARKER.encode() + b"\r\n\r\n")
        assert process.read_metric("busyapi_build_info") == 1
    assert [process.log.read_bytes() for process in stack.processes] == before


LIBRARY = f"""
import logging, sys
from busyapi.telemetry import logs
import structlog
logs.configure_logging("info", role="test")
secret = "{MARKER}"
try:
    raise ValueError(secret)
except ValueError:
    logging.getLogger("asyncio").error("failed with %s", secret, exc_info=True)
    logging.getLogger("some.library").warning(secret, stack_info=True)
    structlog.get_logger().error("own_event", exc_info=True)
logging.getLogger("sanic.root").info(secret)
structlog.get_logger().debug("too much")
"""


def test_a_log_record_of_a_library_is_reduced_to_logger_and_error() -> None:
    run = subprocess.run(
        [sys.executable, "-c", LIBRARY], capture_output=True, text=True, timeout=30, check=True
    )
    assert run.stderr == ""
    first, second, third = (json.loads(line) for line in run.stdout.splitlines())
    assert (first["event"], first["logger"], first["error"]) == (
        "library_log",
        "asyncio",
        "ValueError",
    )
    assert (second["level"], second["logger"]) == ("warning", "some.library")
    assert third.keys() == {"time", "level", "event", "role"}
    assert MARKER not in run.stdout


def test_on_a_terminal_log_lines_are_plain_text() -> None:
    leader, follower = pty.openpty()
    text = "from busyapi.telemetry import logs; import structlog;"
    text += "logs.configure_logging('info', role='test');"
    text += "structlog.get_logger().info('an_event', seq=7)"
    subprocess.run([sys.executable, "-c", text], stdout=follower, timeout=30, check=True)
    output = os.read(leader, 10_000).decode()
    os.close(leader)
    os.close(follower)
    assert "an_event" in output
    assert not output.lstrip().startswith("{")


def test_unstable_redis_does_not_flood_the_log(valkey: Server, stacks: Stacks) -> None:
    started = monotonic()
    stack = stacks(valkey, settings={"BUSYAPI_COMMIT_DEADLINE": "0.5"})
    api, flusher = stack.apis[0], stack.flushers[0]
    for tries in (5, 10):
        valkey.kill9()
        for number in range(5):
            check_unavailable(send(stack.port, USAGE, x_request_id=f"down-{tries}-{number}"), "no")
        failed = partial(
            api.read_metric, "busyapi_committer_failures_total", reason="RedisUnavailable"
        )
        wait_until(lambda: failed() >= tries, "the committer to try again", seconds=20)  # noqa: B023
        wait_until(lambda: not flusher.is_ready(), "the flusher to see it")
        valkey.start()
        for process in stack.processes:
            process.wait_until_ready()
    assert stack.stop() == {"flusher-0": 0, "api-0": 0}
    intervals = (monotonic() - started) // REPEAT_SECONDS
    for process, event in ((api, "redis_disconnected"), (flusher, "flusher_not_ready")):
        logged = [line for line in read_log(process) if line["event"] == event]
        failures = [line for line in logged if line["reason"] == "RedisUnavailable"]
        assert sum(int(str(line.get("repeated", 1))) for line in failures) >= 2, failures
        assert intervals or any("repeated" in line for line in failures), failures
        for count in Counter(line["detail"] for line in logged).values():
            assert count <= 2 + intervals, logged
    rejections = [line for line in read_log(api) if line["event"] == "write_rejected"]
    assert (rejections[0]["request_id"], rejections[0]["reason"]) == (
        "down-5-0",
        "RedisUnavailable",
    )
    assert len(rejections) <= 1 + intervals, rejections
    for line in rejections[1:]:
        _, round_, nth = str(line["request_id"]).split("-")
        assert line["requests"] == int(nth) + (5 if round_ == "10" else 0), rejections


def test_an_unreadable_archive_is_logged_with_the_request(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey)
    number = check_stored(send(stack.port, USAGE))
    stack.wait_until_archived()
    (file,) = stack.archive.rglob("*.zst*")
    file.write_bytes(bytes(file.stat().st_size))
    answer = fetch(stack.port, f"/api/usages/{number}", headers={"x-request-id": "night-3"})
    check_unavailable(answer, "no")
    assert answer.headers["x-request-id"] == "night-3"
    check_unavailable(fetch(stack.port, f"/api/usages/{number}"), "no")
    flusher = stack.flushers[0]
    (rejected,) = [line for line in read_log(stack.apis[0]) if "rejected" in str(line["event"])]
    assert (rejected["event"], rejected["request_id"]) == ("read_rejected", "night-3")
    assert "stored" not in rejected
    failures = [line for line in read_log(flusher) if line["event"] == "lookup_failed"]
    assert failures[0]["request_id"] == "night-3"
    (damaged,) = [line for line in read_log(flusher) if line["event"] == "archive_damaged"]
    assert file.name in str(damaged["detail"])
    assert flusher.read_metric("busyapi_archive_damaged_files") == 1


def test_no_part_of_a_request_is_in_a_log_a_metric_or_an_error(stack: Stack, store: Server) -> None:
    accepted = list(send_accepted(stack))
    assert [answer.status for answer in accepted] == [201] * len(accepted)
    refused = list(send_refused(stack))
    statuses = {answer.status for answer in refused}
    assert statuses == {400, 401, 403, 404, 405, 408, 413, 415, 417, 422}
    hang_up(stack)
    stack.wait_until_archived()
    # The same while Redis is down, then while the flusher is stopped, and as they come back.
    store.kill9()
    api, flusher = stack.apis[0], stack.flushers[0]
    wait_until(
        lambda: api.read_metric("busyapi_committers_ready") == 0,
        "the committer to see that Redis died",
    )
    refused += send_accepted(stack)
    store.start()
    wait_until(lambda: post(stack, USAGE).status == 201, "Redis to be back", seconds=20)
    assert flusher.stop() == 0
    read = {"authorization": f"Bearer good{MARKER}"}
    refused.append(fetch(stack.port, f"/api/usages/1?{MARKER}", headers=read))
    flusher.start()
    stack.wait_until_archived()
    # Last, the log lines of the stop.
    metrics = [fetch(process.scrape_port, "/metrics").body for process in stack.processes]
    assert [process.stop() for process in (api, flusher)] == [0, 0]

    for answer in refused:
        assert answer.status in range(400, 504)
        assert MARKER.encode() not in answer.body, answer
    for text in (*metrics, *(process.log.read_bytes() for process in (api, flusher, store))):
        for hidden in (MARKER, MARKER.upper(), quote(MARKER), USAGE["medication"]):
            assert hidden.encode() not in text
    for process in (api, flusher):
        assert read_log(process)[-1]["event"] in {"api_stopped", "flusher_stopped"}
