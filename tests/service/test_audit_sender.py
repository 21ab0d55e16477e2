"""Entries reach the trail, whatever else is sent with them and whatever fails meanwhile."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from busyapi.api.archive_client import ArchiveClient
from busyapi.api.audit_sender import EntrySender
from busyapi.audit.record import MAX_TEXT, AuditEntry
from busyapi.errors import AuditUnavailable
from testkit.audit import make_entry, read_records, verify
from testkit.processes import Stack
from testkit.servers import Server
from tests.conftest import Stacks

INVALID = make_entry(resource="x" * (MAX_TEXT + 1))
"""A flusher answers 422 to it."""
UNSENDABLE = make_entry(resource=b"")
"""It has no form in JSON."""


class Sender(EntrySender):
    """A sender to a real flusher, and what it counted."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.dropped: list[int] = []
        self.deliveries: list[str] = []
        self.client = ArchiveClient(f"http://127.0.0.1:{stack.flushers[0].archive_port}", 1)
        super().__init__(self.client, 0, self.dropped.append, self.deliveries.append)

    def list_requests(self) -> list[str]:
        """Return the request ids of the recorded entries."""
        records = read_records(self.stack.archive)
        return [record["request"] for record in records if "request" in record]


@pytest.fixture
async def sender(stacks: Stacks, valkey: Server) -> AsyncIterator[Sender]:
    """Return a sender to the flusher of a stack."""
    sender = Sender(stacks(valkey))
    yield sender
    await sender.close(1)
    await sender.client.close()


async def try_to_send(sender: Sender, entry: AuditEntry) -> str:
    try:
        async with asyncio.timeout(10):
            await sender.send(entry)
    except AuditUnavailable:
        return "refused"
    return "recorded"


async def test_refused_entry_is_dropped_and_the_others_are_recorded(sender: Sender) -> None:
    for entry in (make_entry(1), INVALID, make_entry(2)):
        sender.send_later(entry)
    outcomes = await asyncio.gather(
        *(try_to_send(sender, entry) for entry in (make_entry(3), INVALID, make_entry(4)))
    )
    assert outcomes == ["recorded", "refused", "recorded"]
    assert sender.list_requests() == ["r-1", "r-2", "r-3", "r-4"]
    assert sender.dropped == [1, 1]
    assert set(sender.deliveries) == {"recorded"}
    records = read_records(sender.stack.archive)
    assert sum(record.get("dropped", 0) for record in records) == 2
    assert not verify(sender.stack.archive).problems


async def test_flusher_that_stops_within_a_refused_batch_loses_no_entry(sender: Sender) -> None:
    (flusher,) = sender.stack.flushers
    flusher.stop()
    for usage in range(1, 4):
        sender.send_later(INVALID if usage == 2 else make_entry(usage))
    assert await try_to_send(sender, make_entry(4)) == "refused"
    await asyncio.to_thread(flusher.start)
    assert await try_to_send(sender, make_entry(5)) == "recorded"
    assert sender.list_requests() == ["r-1", "r-3", "r-5"]
    assert sender.deliveries[0] == "failed"
    assert sender.deliveries[-1] == "recorded"


async def test_unexpected_exception_refuses_the_read_and_not_the_next_one(sender: Sender) -> None:
    outcomes = await asyncio.gather(*(try_to_send(sender, UNSENDABLE) for _ in range(2)))
    assert outcomes == ["refused", "refused"]
    assert await try_to_send(sender, make_entry(1)) == "recorded"


async def test_close_refuses_the_reads_that_wait(sender: Sender) -> None:
    (flusher,) = sender.stack.flushers
    flusher.pause()
    try:
        read = asyncio.create_task(try_to_send(sender, make_entry(1)))
        await asyncio.sleep(0)
        sender.send_later(make_entry(2))
        await sender.close(0.1)
        assert await read == "refused"
        assert sender.dropped == [1]
    finally:
        flusher.resume()
