"""A crash at every step between commit and archive, and a failing disk, under load."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from testkit.archive.command import run_verify
from testkit.history import History
from testkit.load import PAUSE_AFTER_201_SECONDS, Load
from testkit.processes import Flusher, Process, Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks

VARIABLE = "BUSYAPI_FAILPOINTS"
SMALL_SEGMENTS = {"BUSYAPI_SEGMENT_BYTES": "3000"}
"""The flusher finishes a segment every few flushes."""
KILLED = -9

API = ("api-before-commit=kill@30", "api-after-commit=kill@30")
# The archive's unit tests cover its own failpoints; these are the steps between it and Redis. The
# first hit of a `kill@2` is in the recovery from the crash before, the second in normal work.
FLUSHER = (
    "archive-keys-after-write=kill",
    "flusher-keys-archived=kill",
    "flusher-before-publish=kill",
    "flusher-after-publish=kill",
    "archive-after-write=kill",
    "archive-after-sync=kill",
    "archive-before-rename=kill@2",
    "archive-after-rename=kill@2",
)
RECOVERY = ("archive-recover-copied=kill", "archive-recover-before-unlink=kill")
"""Both need an open segment, so a crash during normal work precedes each."""


def restart_with_failpoint(process: Process, spec: str) -> None:
    """Kill a process and start it with a failpoint."""
    process.kill9()
    process.environment[VARIABLE] = spec
    process.spawn()
    del process.environment[VARIABLE]


def crash(process: Process, spec: str) -> int:
    """Run a process until its failpoint ends it; return its exit code."""
    restart_with_failpoint(process, spec)
    return process.wait(30)


@contextmanager
def post_all_kinds(stack: Stack, history: History, *, pause_after_201: float) -> Iterator[None]:
    """Post singles, and batches with keys, in the background."""
    with (
        Load(stack.port, connections=4, pause_after_201=pause_after_201, history=history),
        Load(
            stack.port,
            connections=2,
            batch=5,
            keys=True,
            pause_after_201=pause_after_201,
            history=history,
        ),
    ):
        yield


def count_errors(flusher: Flusher) -> float:
    return flusher.read_metric("busyapi_archive_errors_total")


def wait_until_more_is_archived(stack: Stack) -> None:
    """Wait until the flusher archives more."""
    (flusher,) = stack.flushers
    before = flusher.read_metric("busyapi_archived_seq")
    wait_until(
        lambda: flusher.read_metric("busyapi_archived_seq") > before,
        "more in the archive",
        seconds=20,
    )


def test_crash_at_every_step_loses_nothing_and_repeats_nothing(
    valkey: Server, stacks: Stacks
) -> None:
    stack = stacks(valkey, settings=SMALL_SEGMENTS)
    (flusher,), (api,) = stack.flushers, stack.apis
    history = History()
    # Without a pause between posts there is always a batch in flight.
    with post_all_kinds(stack, history, pause_after_201=0):
        for spec in API:
            assert crash(api, spec) == KILLED, spec
            api.start()
    with post_all_kinds(stack, history, pause_after_201=PAUSE_AFTER_201_SECONDS):
        for spec in FLUSHER:
            assert crash(flusher, spec) == KILLED, spec
        flusher.start()
        for spec in RECOVERY:
            assert crash(flusher, "archive-after-sync=kill") == KILLED
            assert crash(flusher, spec) == KILLED, spec
        flusher.start()
    stack.wait_until_archived()
    assert set(stack.stop().values()) == {0}
    verdict = stack.check_history(history)
    assert verdict.ok, verdict
    assert verdict.skipped == 0
    assert run_verify(stack.archive) == 0


@pytest.mark.faults
def test_failing_disk_loses_nothing_and_ends_the_flusher_on_a_failed_fsync(
    valkey: Server, stacks: Stacks
) -> None:
    stack = stacks(valkey, settings=SMALL_SEGMENTS)
    (flusher,) = stack.flushers
    with Load(stack.port, connections=4) as load:
        restart_with_failpoint(flusher, "archive-sync=eio")
        wait_until(lambda: "flusher_failed" in flusher.tail(), "the flusher to fail", seconds=20)
        count_errors(flusher)  # a failed flusher exits after a scrape of its last metrics
        assert flusher.wait(10) == 1
        assert "fsync_failed" in flusher.tail()
        # The same process retries a failed write in a new file.
        flusher.restart()
        flusher.environment[VARIABLE] = "archive-write=eio@1"
        flusher.restart()
        wait_until(lambda: count_errors(flusher) == 1, "the write to fail", seconds=20)
        wait_until_more_is_archived(stack)
        assert flusher.is_running
    stack.wait_until_archived()
    assert set(stack.stop().values()) == {0}
    verdict = stack.check_history(load.history)
    assert verdict.ok, verdict
    assert verdict.skipped == 0
    assert run_verify(stack.archive) == 0
