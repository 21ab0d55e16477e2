"""The process that reads pages: one query at a time, and none waits without a bound."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from busyapi.flusher import page_reader
from busyapi.flusher.page_reader import PageFailed, PageReader, PagesBusy
from testkit.archive.builder import find_open_segment, write_blocks

QUERY: dict[str, Any] = {
    "first": 1,
    "last": 30,
    "usages": 100,
    "bytes": 1 << 20,
    "patient": "3",
    "since_ms": 0,
    "until_ms": None,
    "medications": [],
    "visible": None,
}


PATIENCE_SECONDS = 30.0


@pytest.fixture
async def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PageReader]:
    monkeypatch.setattr(page_reader, "MAX_SECONDS", PATIENCE_SECONDS)
    write_blocks(tmp_path, 10, 20)
    reader = PageReader(tmp_path, 0)
    yield reader
    await reader.close()


def pid_of(reader: PageReader) -> int:
    assert reader._process
    return reader._process.pid


async def read_seqs(reader: PageReader, **changes: Any) -> list[int]:
    head, *lines = (await reader.read(QUERY | changes)).split(b"\n")
    seqs: list[int] = json.loads(head)["seqs"]
    assert len(lines) == len(seqs) + 1
    return seqs


async def test_no_module_of_the_working_directory_is_imported(
    reader: PageReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    assert await read_seqs(reader) == [3, 10, 17, 24]


async def test_one_process_of_low_priority_answers_all_queries(
    reader: PageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUSYAPI_REDIS_PASSWORD", "secret")
    assert await read_seqs(reader) == [3, 10, 17, 24]
    pid = pid_of(reader)
    assert await read_seqs(reader, first=11, usages=1) == [17]
    assert pid_of(reader) == pid
    assert os.getpriority(os.PRIO_PROCESS, pid) == page_reader.NICENESS
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
    assert b"BUSYAPI" not in Path(f"/proc/{pid}/environ").read_bytes()


async def test_silent_or_dead_process_is_replaced(
    reader: PageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await read_seqs(reader)
    pid = pid_of(reader)
    monkeypatch.setattr(page_reader, "MAX_SECONDS", 0.2)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(PageFailed, match="TimeoutError"):
        await reader.read(QUERY)
    monkeypatch.setattr(page_reader, "MAX_SECONDS", PATIENCE_SECONDS)
    assert await read_seqs(reader) == [3, 10, 17, 24]
    assert pid_of(reader) != pid
    # A query whose client has gone: the next one must not get its answer.
    os.kill(pid_of(reader), signal.SIGSTOP)
    task = asyncio.create_task(reader.read(QUERY | {"patient": "4"}))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await read_seqs(reader) == [3, 10, 17, 24]
    assert reader._process
    reader._process.kill()
    await reader._process.wait()
    assert await read_seqs(reader) == [3, 10, 17, 24]


async def test_slow_start_fails_queries_and_is_not_begun_again(
    reader: PageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_reader, "MAX_SECONDS", 0.01)
    while reader._process is None:  # on a busy machine, the system itself takes as long
        with pytest.raises(PageFailed, match="TimeoutError"):
            await reader.read(QUERY)
    pid = pid_of(reader)
    impatient = asyncio.create_task(reader.read(QUERY | {"patient": "4"}))
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    monkeypatch.setattr(page_reader, "MAX_SECONDS", PATIENCE_SECONDS)
    assert await read_seqs(reader) == [3, 10, 17, 24]
    assert pid_of(reader) == pid


async def test_start_without_an_end_is_given_up(
    reader: PageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_reader, "MAX_SECONDS", 0.01)
    monkeypatch.setattr(page_reader, "START_SECONDS", 0.0)
    with pytest.raises(PageFailed, match="TimeoutError"):
        await reader.read(QUERY)
    assert reader._process is None


async def test_query_behind_others_is_refused_in_time(
    reader: PageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await read_seqs(reader)
    monkeypatch.setattr(page_reader, "WAIT_SECONDS", 0.3)
    os.kill(pid_of(reader), signal.SIGSTOP)
    first = asyncio.create_task(read_seqs(reader))
    others = [asyncio.create_task(reader.read(QUERY)) for _ in range(page_reader.MAX_WAITING)]
    await asyncio.sleep(0.05)
    with pytest.raises(PagesBusy):  # at once: the queue is full
        await asyncio.wait_for(reader.read(QUERY), 0.1)
    results = await asyncio.gather(*others, return_exceptions=True)
    assert {type(result) for result in results} == {PagesBusy}
    os.kill(pid_of(reader), signal.SIGCONT)
    assert await first == [3, 10, 17, 24]
    assert await read_seqs(reader) == [3, 10, 17, 24]


async def test_query_that_cannot_be_read_leaves_the_process_running(
    reader: PageReader, tmp_path: Path
) -> None:
    wrong: list[dict[str, Any]] = [
        {"first": "x"},
        {"visible": {"other": "1"}},
        {"patient": []},
    ]
    for changes in wrong:
        with pytest.raises(PageFailed):
            await reader.read(QUERY | changes)
    pid = pid_of(reader)
    path = find_open_segment(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\0" + content[101:])
    with pytest.raises(PageFailed, match=f"ArchiveDamaged: .*{path.name}"):
        await reader.read(QUERY)
    path.write_bytes(content)
    assert await read_seqs(reader) == [3, 10, 17, 24]
    assert pid_of(reader) == pid


async def test_no_process_is_started_while_the_last_one_hangs(
    reader: PageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_reader, "MAX_SECONDS", 0.2)
    hanging = await asyncio.create_subprocess_exec("sleep", "60")
    reader._ending = hanging  # as one whose disk does not answer, which no signal ends
    for _ in range(2):
        with pytest.raises(PageFailed, match="TimeoutError"):
            await reader.read(QUERY)
        assert reader._process is None
    await asyncio.wait_for(reader.close(), 1)
    hanging.kill()
    monkeypatch.setattr(page_reader, "MAX_SECONDS", PATIENCE_SECONDS)
    assert await read_seqs(reader) == [3, 10, 17, 24]


async def test_process_ends_when_idle_also_after_a_query_that_failed(
    reader: PageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_reader, "IDLE_SECONDS", 0.1)
    for changes in ({}, {"first": "x"}):
        with contextlib.suppress(PageFailed):
            await reader.read(QUERY | changes)
        assert reader._process
        await asyncio.wait_for(reader._process.wait(), 20)
