"""A death at every step between the commit and the archive, and a disk that fails, under load."""

from collections.abc import Iterator
from contextlib import contextmanager

from testkit.archive.command import run_verify
from testkit.history import History
from testkit.load import REST_SECONDS, Load
from testkit.processes import Flusher, Process, Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks

VARIABLE = "BUSYAPI_FAILPOINTS"
SMALL_SEGMENTS = {"BUSYAPI_SEGMENT_BYTES": "3000"}
"""One is finished with every few flushes."""
KILLED = -9

API = ("api-before-commit=kill@30", "api-after-commit=kill@30")
# Each of the archive's has a test of its own beside the archive; these are the steps between it and
# Redis. A second one is of the work: the first is of the recovery from the death before.
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
"""Both need an open segment, so a death in the midst of the work before it."""


def doomed(process: Process, spec: str) -> None:
    """Start a process anew, with a failpoint."""
    process.kill9()
    process.environment[VARIABLE] = spec
    process.spawn()
    del process.environment[VARIABLE]


def die(process: Process, spec: str) -> int:
    """Run a process until its failpoint has ended it; return its exit code."""
    doomed(process, spec)
    return process.wait(30)


@contextmanager
def loads(stack: Stack, history: History, *, rest: float) -> Iterator[None]:
    """Post singles, and batches with keys."""
    with (
        Load(stack.port, connections=4, rest=rest, history=history),
        Load(stack.port, connections=2, batch=5, keys=True, rest=rest, history=history),
    ):
        yield


def errors(flusher: Flusher) -> float:
    return flusher.read_metric("busyapi_archive_errors_total")


def go_on(stack: Stack) -> None:
    """Wait until the flusher has archived more than now."""
    (flusher,) = stack.flushers
    before = flusher.read_metric("busyapi_archived_seq")
    wait_until(
        lambda: flusher.read_metric("busyapi_archived_seq") > before,
        "more in the archive",
        seconds=20,
    )


def test_death_at_every_step_loses_nothing_and_repeats_nothing(
    valkey: Server, stacks: Stacks
) -> None:
    stack = stacks(valkey, settings=SMALL_SEGMENTS)
    (flusher,), (api,) = stack.flushers, stack.apis
    history = History()
    # Without a rest there is always a flight to die in.
    with loads(stack, history, rest=0):
        for spec in API:
            assert die(api, spec) == KILLED, spec
            api.start()
    with loads(stack, history, rest=REST_SECONDS):
        for spec in FLUSHER:
            assert die(flusher, spec) == KILLED, spec
        flusher.start()
        for spec in RECOVERY:
            assert die(flusher, "archive-after-sync=kill") == KILLED
            assert die(flusher, spec) == KILLED, spec
        flusher.start()
    stack.wait_until_archived()
    assert set(stack.stop().values()) == {0}
    verdict = stack.check_history(history)
    assert verdict.ok, verdict
    assert verdict.skipped == 0
    assert run_verify(stack.archive) == 0


def test_failing_disk_loses_nothing_and_ends_the_flusher_on_a_failed_fsync(
    valkey: Server, stacks: Stacks
) -> None:
    stack = stacks(valkey, settings=SMALL_SEGMENTS)
    (flusher,) = stack.flushers
    with Load(stack.port, connections=4) as load:
        doomed(flusher, "archive-sync=eio")
        wait_until(lambda: "flusher_failed" in flusher.tail(), "the flusher to fail", seconds=20)
        errors(flusher)  # a scrape of its last figures lets it go at once
        assert flusher.wait(10) == 1
        assert "fsync_failed" in flusher.tail()
        # A write that fails is tried again by the same process, in a new file.
        flusher.restart()
        flusher.environment[VARIABLE] = "archive-write=eio@1"
        flusher.restart()
        wait_until(lambda: errors(flusher) == 1, "the write to fail", seconds=20)
        go_on(stack)
        assert flusher.is_running
    stack.wait_until_archived()
    assert set(stack.stop().values()) == {0}
    verdict = stack.check_history(load.history)
    assert verdict.ok, verdict
    assert verdict.skipped == 0
    assert run_verify(stack.archive) == 0
