"""A flusher's retention: it reports files that it cannot delete and continues to archive."""

import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from busyapi.archive.format import UsageBatch
from busyapi.archive.paths import utc_day
from busyapi.ids import Seq
from testkit.archive.builder import find_segments
from testkit.in_process import open_archive, poll_until
from testkit.in_process_stack import InProcessStack
from testkit.servers import Server

DAY_SECONDS = 86_400


@pytest.fixture
def stack(valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcessStack:
    """Three segments of one usage each, ten days old."""
    stack = InProcessStack(valkey, tmp_path / "archive", monkeypatch)
    writer = open_archive(stack.archive, bound=1000, segment_bytes=1)
    then = time.time() - 10 * DAY_SECONDS
    for seq in (1, 2, 3):
        writer.append([UsageBatch(Seq(seq), Seq(seq), int(then * 1000), b"{}")])
        writer.roll_if_due()
    writer.close()
    (today,) = (stack.archive / "p00").glob("????-??-??")
    today.rename(today.with_name(utc_day(then)))
    return stack


def logged(lines: list[Any], event: str) -> list[str]:
    return [line["detail"] for line in lines if line["event"] == event]


def segments(stack: InProcessStack) -> list[str]:
    return sorted(path.name for path in find_segments(stack.archive))


async def test_an_idle_service_logs_once_that_retention_waits_for_a_usage(
    stack: InProcessStack,
) -> None:
    with capture_logs() as lines:
        async with stack.run(retention_days=5) as (flusher, committer):
            refused = flusher._metrics.retention_refused._value
            await poll_until(lambda: refused.get() == 1, "the metric")
            await poll_until(lambda: logged(lines, "retention_refused"), "the log line")
            assert len(segments(stack)) == 3
            (first, *_) = await stack.post(committer, "a", 1)
            assert isinstance(first, int)
            await stack.wait_until_archived(first)
            await poll_until(lambda: refused.get() == 0, "the metric to fall")
            assert segments(stack) == [], "retention still waits although the open segment is new"
    (detail,) = logged(lines, "retention_refused")
    assert "If no usage came for more than two days, the next one ends this" in detail
    assert stack.read_archived_ids() == [first]


async def test_a_damaged_old_segment_is_named_and_counted_and_archiving_continues(
    stack: InProcessStack,
) -> None:
    name = segments(stack)[0]
    # Old enough that recovery does not read it.
    writer = open_archive(stack.archive, bound=1000, segment_bytes=1)
    for seq in (4, 5, 6):
        writer.append([UsageBatch(Seq(seq), Seq(seq), int(time.time() * 1000), b"{}")])
        writer.roll_if_due()
    writer.close()
    (path,) = stack.archive.rglob(name)
    path.write_bytes(path.read_bytes()[:-5])
    with capture_logs() as lines:
        async with stack.run(retention_days=5) as (flusher, committer):
            for _ in range(3):
                (answer,) = await stack.post(committer, "a", 1)
                assert isinstance(answer, int)
                await stack.wait_until_archived(answer)
            await poll_until(lambda: flusher._metrics.damaged_files._value.get() == 1, "the metric")
            assert not flusher.not_ready_reason
    (detail,) = logged(lines, "archive_damaged")
    assert name in detail
    assert [file.name for file in path.parent.glob("usages-*")] == [name]
