"""The process that makes filters of patients: where it may die, and when it ends."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from busyapi import cli
from busyapi.archive.convert import exclude_other_conversions
from busyapi.archive.index_file import decode_patients
from busyapi.archive_cli import filter_worker
from busyapi.archive_cli.filter_worker import make_filters
from busyapi.archive_cli.verify import verify_archive
from busyapi.failpoints import VARIABLE
from busyapi.flusher import filters
from busyapi.flusher.filters import FilterMaker
from testkit.archive.builder import find_segments, make_batch, read_ids, recover_writer
from testkit.waiting import wait_until

SEGMENTS = 4
STEPS = ("write-index", "sync", "before-rename", "after-rename", "sync-folder")
NOBODY_LEFT: frozenset[str] = frozenset()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write segments of one usage, whose seqs are 1, 2 and so on."""
    writer = recover_writer(tmp_path, segment_bytes=1)
    for seq in range(1, SEGMENTS + 1):
        writer.append([make_batch(seq)])
        writer.roll_if_due()
    writer.close()
    return tmp_path


@pytest.fixture
async def maker(root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FilterMaker]:
    monkeypatch.setattr(filters, "INTERVAL_SECONDS", 0.0)
    maker = FilterMaker(root, 0)
    yield maker
    await maker.close()


def list_filters(root: Path) -> list[bool]:
    """Return which segments have a filter, the oldest first."""
    return [
        decode_patients(path.read_bytes()) is not None for path in sorted(root.rglob("*.index"))
    ]


def list_paths(root: Path) -> list[str]:
    """Return the paths of the segments in their partition, the oldest first."""
    return [str(segment.relative_to(root / "p00")) for segment in find_segments(root)]


def hang_at(segment: Path) -> None:
    """Let a process that opens a segment wait, as for a disk that does not answer."""
    segment.unlink()
    os.mkfifo(segment)


def start_worker(root: Path, failpoints: str = "") -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "busyapi.archive_cli.filter_worker", root, "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={VARIABLE: failpoints} if failpoints else {},
    )
    assert process.stdin
    process.stdin.write(b"[]\n")
    process.stdin.flush()
    return process


async def find_process(maker: FilterMaker) -> int:
    """Return the process id of the maker's process, when it has begun a segment."""
    is_reading = lambda: maker._reading is not None  # noqa: E731
    await asyncio.to_thread(wait_until, is_reading, "a segment", seconds=60)
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
    (pid,) = (
        int(pid)
        for pid in children.split()
        if b"filter_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    return pid


def test_wherever_it_is_killed_the_archive_is_readable_and_the_next_process_continues(
    root: Path,
) -> None:
    for step in STEPS:
        with start_worker(root, f"archive-{step}=kill") as process:
            assert process.wait() == -signal.SIGKILL, step
        assert read_ids(root) == list(range(1, SEGMENTS + 1))
        (report,) = verify_archive(root)
        assert report.problems == []
    done = list_filters(root)
    assert done == [False, False, True, True], "the newest first; two steps are after the rename"
    with start_worker(root) as process:
        assert process.wait() == 0
    assert list_filters(root) == [True] * SEGMENTS
    assert not list(root.rglob("*.tmp"))
    recover_writer(root).close()
    assert list_filters(root) == [True] * SEGMENTS


def test_process_ends_with_its_flusher(root: Path) -> None:
    hang_at(find_segments(root)[-1])
    with start_worker(root) as process:
        assert process.stdin
        assert process.stdout
        assert json.loads(process.stdout.readline()) == {"path": list_paths(root)[-1]}
        process.stdin.close()
        assert process.wait(30) == 0


async def test_a_segment_at_which_the_process_dies_is_left_and_the_others_get_filters(
    root: Path, maker: FilterMaker
) -> None:
    hang_at(find_segments(root)[-1])
    for _ in range(filters.MAX_TRIES):
        maker.start()
        task = maker._task
        assert task
        pid = await find_process(maker)
        maker.start()
        assert maker._task is task, "one process at a time"
        assert os.getpriority(os.PRIO_PROCESS, pid) == filters.NICENESS
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
        os.kill(pid, signal.SIGKILL)
        await task
        assert maker._reading == list_paths(root)[-1]
        maker._reading = None
    assert list_filters(root) == [False] * SEGMENTS
    maker.start()
    assert maker._task
    await maker._task
    assert list_filters(root) == [True] * (SEGMENTS - 1) + [False]


async def test_a_segment_that_has_a_filter_is_not_read_again(
    root: Path, maker: FilterMaker
) -> None:
    maker.start()
    assert maker._task
    await maker._task
    assert list_filters(root) == [True] * SEGMENTS
    for segment in find_segments(root):
        hang_at(segment)
    maker.start()
    await asyncio.wait_for(maker._task, 60)
    assert maker._reading is None


async def test_close_ends_the_process_and_starts_no_other(root: Path, maker: FilterMaker) -> None:
    hang_at(find_segments(root)[-1])
    maker.start()
    pid = await find_process(maker)
    await asyncio.wait_for(maker.close(), 30)
    assert not Path(f"/proc/{pid}").exists()
    task = maker._task
    maker.start()
    assert maker._task is task


def test_a_damaged_segment_is_reported_and_the_others_get_filters(root: Path) -> None:
    damaged = find_segments(root)[1]
    content = bytearray(damaged.read_bytes())
    content[20] ^= 1
    damaged.write_bytes(content)
    reports: list[dict[str, Any]] = []
    make_filters(root, 0, NOBODY_LEFT, reports.append)
    path = list_paths(root)[1]
    errors = {report["path"]: report["error"] for report in reports if "error" in report}
    assert list(errors) == [path]
    assert path in errors[path]
    done = [report["path"] for report in reports if "done" in report]
    assert done == [other for other in reversed(list_paths(root)) if other != path]
    assert list_filters(root) == [True, False, True, True]
    assert damaged.read_bytes() == content
    make_filters(root, 0, frozenset([path]), reports.append)
    assert len([report for report in reports if report["path"] == path]) == 2


def test_on_a_nearly_full_volume_no_filter_is_made(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filter_worker, "MIN_FREE_BYTES", 1 << 60)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    make_filters(root, 0, NOBODY_LEFT, lambda _: None)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("step", ["write-index", "sync"])
def test_a_volume_that_gets_full_ends_the_process_and_leaves_no_segment(
    root: Path, step: str
) -> None:
    """On NFS, or with a quota, an fsync may be what finds the volume full."""
    with start_worker(root, f"archive-{step}=enospc") as process:
        assert process.stdout
        output = process.stdout.read()  # its stdin stays open: it ends with that
    assert process.returncode == 0
    assert [json.loads(line) for line in output.splitlines()] == [{"path": list_paths(root)[-1]}]
    assert list_filters(root) == [False] * SEGMENTS
    assert not list(root.rglob("*.tmp"))


def test_an_upgrade_waits_for_the_filter_that_is_being_made_and_goes_before_the_next(
    root: Path,
) -> None:
    with exclude_other_conversions(root / "p00"):
        make_filters(root, 0, NOBODY_LEFT, lambda _: None)
        assert list_filters(root) == [False] * SEGMENTS
        upgrade = threading.Thread(
            target=lambda: cli.main(["archive", "upgrade", "--dir", str(root)])
        )
        upgrade.start()
        upgrade.join(0.3)
        assert upgrade.is_alive()
    upgrade.join(30)
    wait_until(lambda: list_filters(root) == [True] * SEGMENTS, "the filters")
