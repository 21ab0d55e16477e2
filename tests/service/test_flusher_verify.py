"""A flusher verifies its archive while it archives: what it finds, and what interrupts it."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from testkit.api_client import USAGE, check_stored, send
from testkit.archive.builder import find_segments
from testkit.http1 import fetch
from testkit.processes import Flusher, Stack
from testkit.servers import Server
from testkit.verification import find_verification, pause_verification
from testkit.waiting import wait_until
from tests.conftest import Stacks

OFTEN = {"BUSYAPI_VERIFY_INTERVAL": "1", "BUSYAPI_SEGMENT_AGE": "0.1"}
ENDED = "busyapi_archive_verified_timestamp_seconds"
PROBLEMS = "busyapi_archive_verify_problems"


def post(stack: Stack, usages: int = 20) -> None:
    """Post usages, and wait until they are archived."""
    for _ in range(usages):
        check_stored(send(stack.port, USAGE))
    stack.wait_until_archived()


def wait_verified(flusher: Flusher) -> None:
    """Wait until a verification that began after this call has ended."""
    for _ in range(2):
        wait_newer(flusher, flusher.read_metric(ENDED))


def wait_newer(flusher: Flusher, ended: float) -> None:
    """Wait until a verification has ended after this time."""
    wait_until(lambda: flusher.read_metric(ENDED) > ended, "a verification", seconds=60)


def events(flusher: Flusher, name: str) -> list[dict[str, Any]]:
    """Return the log lines of an event."""
    lines = (json.loads(line) for line in flusher.log.read_text().splitlines() if line)
    return [line for line in lines if line["event"] == name]


def find_segment(archive: Path) -> Path:
    """Return the first finished segment."""
    return min(find_segments(archive))


def is_gone(pid: int) -> bool:
    """Return whether a process has ended."""
    return not Path(f"/proc/{pid}").exists()


def test_changed_byte_is_found_while_the_flusher_archives(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey, apis=1, settings=OFTEN)
    (flusher,) = stack.flushers
    post(stack)
    wait_until(lambda: list(find_segments(stack.archive)), "a segment", seconds=30)
    wait_verified(flusher)
    assert flusher.read_metric(PROBLEMS) == 0
    assert events(flusher, "archive_verified")[-1]["usages"] > 0
    segment = find_segment(stack.archive)
    content = segment.read_bytes()
    middle = len(content) // 2
    segment.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    wait_verified(flusher)
    assert flusher.read_metric(PROBLEMS) > 0
    details = [line["detail"] for line in events(flusher, "archive_problem_found")]
    assert all(segment.name in detail for detail in details)
    # Nothing else changes: the file keeps its name, and usages are accepted and archived.
    assert segment.exists()
    post(stack)
    assert fetch(flusher.port, "/readyz").status == 200
    segment.write_bytes(content)
    wait_verified(flusher)
    assert flusher.read_metric(PROBLEMS) == 0


def test_result_survives_a_restart_and_problems_are_verified_again_at_once(
    valkey: Server, stacks: Stacks
) -> None:
    settings = OFTEN | {"BUSYAPI_VERIFY_INTERVAL": "2"}
    stack = stacks(valkey, apis=1, settings=settings)
    (flusher,) = stack.flushers
    post(stack)
    wait_verified(flusher)
    result = stack.archive / "p00" / "verified.json"
    wait_until(result.exists, "the result", seconds=10)
    flusher.environment["BUSYAPI_VERIFY_INTERVAL"] = "86400"
    flusher.stop()
    ended = json.loads(result.read_bytes())["ended"]
    started = len(events(flusher, "archive_verified"))
    flusher.start()
    post(stack)
    assert json.loads(result.read_bytes())["ended"] == ended
    assert len(events(flusher, "archive_verified")) == started
    flusher.stop()
    result.write_text(json.dumps({"ended": ended, "problems": 3}))
    flusher.start()
    wait_until(lambda: flusher.read_metric(PROBLEMS) == 3, "the old result", seconds=10)
    wait_until(lambda: flusher.read_metric(PROBLEMS) == 0, "a verification", seconds=30)
    wait_until(lambda: json.loads(result.read_bytes())["problems"] == 0, "the result", seconds=10)


def test_verification_has_the_lowest_priority_and_no_settings(
    valkey: Server, stacks: Stacks
) -> None:
    stack = stacks(valkey, apis=1, settings=OFTEN)
    (flusher,) = stack.flushers
    with pause_verification(flusher) as pid:
        # The flusher sets both just after the start, and the process may be paused before that.
        score = Path(f"/proc/{pid}/oom_score_adj")
        wait_until(lambda: score.read_text().strip() == "1000", "the score")
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        assert b"BUSYAPI_" not in Path(f"/proc/{pid}/environ").read_bytes()
        # The flusher archives meanwhile, and a stop does not wait for the verification.
        post(stack)
        assert flusher.stop() == 0
        assert is_gone(pid)


def test_killed_verification_is_logged_and_repeated(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey, apis=1, settings=OFTEN)
    (flusher,) = stack.flushers
    before = flusher.read_metric(ENDED)
    with pause_verification(flusher) as pid:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: events(flusher, "archive_not_verified"), "the log line", seconds=30)
    assert "ended with -9" in events(flusher, "archive_not_verified")[0]["detail"]
    wait_newer(flusher, before)


def test_interval_of_0_verifies_never(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey, apis=1, settings=OFTEN | {"BUSYAPI_VERIFY_INTERVAL": "0"})
    (flusher,) = stack.flushers
    post(stack)
    assert flusher.read_metric("busyapi_archive_verify_interval_seconds") == 0
    assert not find_verification(flusher)
    assert events(flusher, "archive_verified") == []
