"""Nothing that a device sent is in a log line, an error or a metric."""

import json
import subprocess
import sys

from tests.conftest import Stacks
from tests.support.http1 import fetch
from tests.support.servers import Server

MARK = "zq7k"
REQUESTS: list[tuple[str, bytes, dict[str, str]]] = [
    (
        "/api/usages",
        b'{"patientId":"zq7k-p","timestamp":5,"medication":"zq7k-m","note":{"zq7k-n":"zq7k-v"}}',
        {"Idempotency-Key": "zq7k-key", "X-Device": "zq7k-header"},
    ),
    ("/api/usages", b'{"patientId":"zq7k-p","timestamp":"zq7k-t","medication":7}', {}),
    ("/api/usages", b'{"patientId":"zq7k-p', {}),
    ("/api/usages", b"zq7k-text", {"Content-Type": "text/plain"}),
    ("/api/usages", b"zq7k", {"Content-Encoding": "gzip"}),
    ("/api/usages?token=zq7k-query", b"[1]", {"Authorization": "Bearer zq7k-token"}),
    ("/api/usages/zq7k-path", b"{}", {}),
    ("/api/usages/batch", b'[{"patientId":"zq7k-p"},{"patientId":"zq7k-q"}]', {}),
    (
        "/api/usages",
        b'{"patientId":"zq7k-p","timestamp":5,"medication":"another"}',
        {"Idempotency-Key": "zq7k-key"},
    ),
    ("/api/usages", b"{}", {"Idempotency-Key": "zq7k key"}),
]


def test_nothing_that_was_sent_is_in_logs_errors_or_metrics(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey, settings={"BUSYAPI_LOG_LEVEL": "debug"})
    for path, body, headers in REQUESTS:
        answer = fetch(stack.port, path, method="POST", body=body, headers=headers)
        if answer.status != 201:
            assert MARK not in answer.body.decode(), (path, answer)
    stack.wait_until_archived()
    metrics = [fetch(each.scraped, "/metrics").body.decode() for each in stack.processes]
    stack.stop()
    for text in (*metrics, *(each.log.read_text() for each in stack.processes)):
        assert MARK not in text
    # The mark went all the way: it is in the archive.
    printed = subprocess.run(
        [sys.executable, "-m", "busyapi", "archive", "cat", "--dir", str(stack.archive)],
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert MARK.encode() in printed.stdout


def test_log_lines_are_json_events_and_none_is_for_a_request(
    valkey: Server, stacks: Stacks
) -> None:
    stack = stacks(valkey)
    body = b'{"patientId":1,"timestamp":5,"medication":"m"}'
    before = sum(len(each.log.read_text().splitlines()) for each in stack.processes)
    for _ in range(50):
        assert fetch(stack.port, "/api/usages", method="POST", body=body).status == 201
        assert fetch(stack.port, "/nothing-here").status == 404
    lines = [line for each in stack.processes for line in each.log.read_text().splitlines()]
    assert len(lines) - before < 10
    for line in lines:
        event = json.loads(line)
        assert {"timestamp", "level", "event", "role"} <= event.keys()
