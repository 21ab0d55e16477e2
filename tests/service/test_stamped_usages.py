"""Usages with a stamp: from the committer through stream and flusher to the archive and back."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from busyapi.errors import NotSeeded
from busyapi.ids import Seq
from busyapi.stamp import Stamp, encode_stamp
from busyapi.stream.entry import MAX_VERSION, encode_stamped_entry
from busyapi.stream.keys import PartitionKeys
from testkit.http1 import fetch
from testkit.in_process import (
    CommitterHarness,
    endpoint_of,
    gather_results,
    poll_until,
    run_committer,
    run_flusher,
)
from testkit.in_process_stack import InProcessStack
from testkit.servers import FLAVOURS, Server
from tests.conftest import Stacks

KEYS = PartitionKeys(0)
OWN = encode_stamp(Stamp("8nC3hQ2vXr0aLw_K"))
TENANT = encode_stamp(Stamp("AAAAAAAAAAAAAAA-", 'Süd "7"},"writer":"x'))


@pytest.fixture
def stack(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InProcessStack]:
    with Server(tmp_path / "server", getattr(request, "param", "valkey")) as server:
        yield InProcessStack(server, tmp_path / "archive", monkeypatch)


@asynccontextmanager
async def run_stamping_committer(stack: InProcessStack) -> AsyncIterator[CommitterHarness]:
    endpoint = replace(endpoint_of(stack.server), entry_version=MAX_VERSION)
    async with run_committer(endpoint) as committer:
        yield committer


def read_versions(stack: InProcessStack) -> list[str]:
    """Return the version of each entry in the stream."""
    entries = stack.server.command("XRANGE", KEYS.stream, "-", "+")
    return [fields["u"].partition(" ")[0] for _, fields in entries]


def read_lines(stack: InProcessStack) -> list[bytes]:
    """Return the archived lines. No flusher may run."""
    writer = stack.make_flusher()._resources._unrecovered.recover()
    try:
        return [line for seq in range(1, writer.cursor + 1) if (line := writer.find_line(Seq(seq)))]
    finally:
        writer.close()


@pytest.mark.parametrize("stack", FLAVOURS, indirect=True)
async def test_entries_with_and_without_stamps_are_archived_in_order(stack: InProcessStack) -> None:
    async with run_flusher(stack.make_flusher()), run_stamping_committer(stack) as committer:
        await committer.wait_until_ready()
        stack.server.pause()
        # The first is sent alone, and the others together while it waits.
        posts = [committer.post(b'{"n":1}')]
        await poll_until(lambda: committer.committer.queued_count == 0, "the first to be sent")
        posts += [
            committer.post(b'{"n":2}', stamp=OWN),
            committer.post(b'{"n":3}'),
            committer.post(b'{"n":4}', b'{"n":5}', stamp=TENANT),
        ]
        stack.server.resume()
        assert await gather_results(posts) == [1, 2, 3, 5]
        await stack.wait_until_archived(5)
    lines = read_lines(stack)
    assert [json.loads(line)["usage"]["n"] for line in lines] == [1, 2, 3, 4, 5]
    stamps = [b"", OWN, b"", TENANT, TENANT]
    assert [line.partition(b'"usage":')[2] for line in lines] == [
        b'{"n":%d}%b}' % (n, stamp) for n, stamp in enumerate(stamps, 1)
    ]
    assert stack.run_command("verify") == 0


async def test_only_entries_with_a_stamp_are_of_version_2(stack: InProcessStack) -> None:
    async with run_flusher(stack.make_flusher()), run_stamping_committer(stack) as committer:
        await committer.wait_until_ready()
    async with run_stamping_committer(stack) as committer:
        await committer.wait_until_ready()
        assert await gather_results([committer.post(b"{}")]) == [1]
        assert await gather_results([committer.post(b"{}", stamp=OWN)]) == [2]
        assert await gather_results([committer.post(b"{}")]) == [3]
        assert read_versions(stack) == ["1", "2", "1"]


async def test_large_entry_with_stamps_is_archived_from_the_cursor_on(
    stack: InProcessStack,
) -> None:
    async with run_flusher(stack.make_flusher()):
        pass
    # Larger than a block of the archive and than a reply, so that it arrives and is cut in parts.
    words = b"x" * 4096
    lines = [b'{"n":%d,"note":"%b"}' % (n, words) + (OWN if n % 2 else b"") for n in range(1, 701)]
    stack.server.client().xadd(KEYS.stream, {"u": encode_stamped_entry(lines, 1)}, id="700-700")
    stack.server.command("INCRBY", KEYS.seq, 700)
    assert stack.accept_loss(5) == 0
    async with run_flusher(stack.make_flusher()):
        await stack.wait_until_archived(700)
    archived = read_lines(stack)
    assert [json.loads(line)["id"] for line in archived] == list(range(6, 701))
    assert {"writer" in json.loads(line) for line in archived[::2]} == {False}
    assert {"writer" in json.loads(line) for line in archived[1::2]} == {True}
    assert stack.run_command("verify") == 0


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "flipped"])
async def test_damaged_stamp_sets_the_entry_aside(stack: InProcessStack, cut: bool) -> None:  # noqa: FBT001 - a parameter of the test
    value = encode_stamped_entry([b"{}" + OWN], 1)
    damaged = value[:-1] if cut else value.replace(b"8nC3", b"8nC2")
    async with run_flusher(stack.make_flusher()), run_stamping_committer(stack) as committer:
        await committer.wait_until_ready()
        stack.server.client().xadd(KEYS.stream, {"u": damaged}, id="1-1")
        stack.server.command("INCRBY", KEYS.seq, 1)
        assert await gather_results([committer.post(b"{}", stamp=OWN)]) == [2]
        await stack.wait_until_archived(2)
    assert stack.read_archived_ids() == [2]
    (path,) = stack.archive.rglob("quarantine-*.bin")
    assert path.read_bytes().endswith(b"\n" + damaged)


async def test_committer_that_writes_stamps_waits_for_a_flusher_that_reads_them(
    stack: InProcessStack,
) -> None:
    async with run_flusher(stack.make_flusher()) as flusher:
        assert stack.read_state()["entries"] == "2"
        await poll_until(lambda: not flusher.not_ready_reason, "the flusher")
    # As 0.2.0 leaves it.
    stack.server.command("HDEL", KEYS.state, "entries")
    async with stack.run_committer() as plain, run_stamping_committer(stack) as stamping:
        await plain.wait_until_ready()
        assert await gather_results([plain.post(b"{}")]) == [1]
        await stamping.wait_until_failed()
        assert isinstance(stamping.committer.last_error, NotSeeded)
        assert "cannot read stamped usages" in str(stamping.committer.last_error)
        async with run_flusher(stack.make_flusher()):
            await stamping.wait_until_ready()
            assert await gather_results([stamping.post(b"{}", stamp=OWN)]) == [2]
            await stack.wait_until_archived(2)


def test_lookup_shows_a_stamped_usage_without_its_stamp(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey)
    usages = [b'{"n":1}', b'{"n":2,"writer":"w","a":{}}', b'{"n":3}']
    lines = [usage + stamp for usage, stamp in zip(usages, (OWN, TENANT, b""), strict=True)]
    stack.flushers[0].stop()
    valkey.client().xadd(KEYS.stream, {"u": encode_stamped_entry(lines, 1)}, id="3-3")
    valkey.command("INCRBY", KEYS.seq, 3)
    buffered = [fetch(stack.port, f"/api/usages/{seq}") for seq in (1, 2, 3)]
    stack.flushers[0].start()
    stack.wait_until_archived()
    archived = [fetch(stack.port, f"/api/usages/{seq}") for seq in (1, 2, 3)]
    assert [answer.body for answer in buffered] == [answer.body for answer in archived]
    for usage, answer in zip(usages, archived, strict=True):
        assert answer.status == 200
        reply = answer.json()
        assert list(reply) == ["id", "receivedAt", "usage"]
        assert reply["usage"] == json.loads(usage)
