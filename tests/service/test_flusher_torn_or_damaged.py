"""The last block of a killed flusher: published and then changed, or never published."""

import subprocess
import sys
from pathlib import Path

from testkit.archive.builder import find_open_segments
from testkit.history import Outcome
from testkit.http1 import fetch
from testkit.load import Load
from testkit.processes import Flusher, Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks

DAMAGED = "busyapi_archive_damaged_files"


def run_archive(root: Path, command: str) -> tuple[int, str]:
    """Run `busyapi archive …`; return its exit code and its output."""
    words = [sys.executable, "-m", "busyapi", "archive", command, "--dir", str(root)]
    run = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    return run.returncode, run.stdout


def post_and_archive(stack: Stack, requests: int) -> None:
    with Load(stack.port, connections=1, requests=requests) as load:
        history = load.finish()
    assert history.usages[Outcome.OK] == requests
    stack.wait_until_archived()


def read_metric(flusher: Flusher, name: str) -> float:
    try:
        return flusher.read_metric(name)
    except OSError:
        return -1.0


def test_a_published_last_block_that_has_changed_is_reported_and_kept(
    valkey: Server, stacks: Stacks
) -> None:
    stack = stacks(valkey)
    (flusher,) = stack.flushers
    post_and_archive(stack, 5)
    post_and_archive(stack, 1)
    flusher.kill9()
    (path,) = find_open_segments(stack.archive)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    code, output = run_archive(stack.archive, "verify")
    assert (code, "damaged   id 6 " in output) == (1, True), output
    flusher.spawn()
    wait_until(lambda: read_metric(flusher, "busyapi_halted") == 1, "a halt", seconds=20)
    assert "usages up to seq 6 were archived" in fetch(flusher.port, "/readyz").body.decode()
    assert flusher.read_metric(DAMAGED) == 1
    (aside,) = stack.archive.rglob("*.damaged")
    assert aside.read_bytes() == data
    code, output = run_archive(stack.archive, "verify")
    assert (code, "missing   id 6 " in output) == (1, True), output
    # All but the changed block is still there.
    assert len(run_archive(stack.archive, "cat")[1].splitlines()) == 5


def test_a_block_that_was_not_published_is_archived_again_without_a_damage_report(
    valkey: Server, stacks: Stacks
) -> None:
    """Control: the partial write that a kill leaves is no damage, however often it happens."""
    stack = stacks(valkey)
    (flusher,) = stack.flushers
    for n in range(2):
        post_and_archive(stack, 3)
        flusher.kill9()
        (path,) = find_open_segments(stack.archive)
        data = path.read_bytes()
        path.write_bytes(data + data[: [100, 20][n]])
        assert run_archive(stack.archive, "verify")[0] == 0
        flusher.start()
        assert flusher.read_metric(DAMAGED) == 0
    post_and_archive(stack, 1)
    assert len(run_archive(stack.archive, "cat")[1].splitlines()) == 7
    assert run_archive(stack.archive, "verify")[0] == 0
    assert not [*stack.archive.rglob("*.damaged*"), *stack.archive.rglob("*.torn*")]
