"""The usages of a list that the stream still has.

The stream is read before the archive. What it lacks at that time is archived, because it is trimmed
after that. In the other order, usages that are archived between the two reads would be in neither.
"""

import asyncio
from collections.abc import Iterator
from time import monotonic
from typing import NamedTuple

from busyapi.api.confirmed import find_confirmed_seq, is_former_server
from busyapi.api.list_request import ListRequest
from busyapi.api.page_cursor import Item
from busyapi.errors import NotSeeded, RedisUnavailable
from busyapi.ids import Seq
from busyapi.stamp import StampedUsage, split_stamp
from busyapi.stream.entry import BadEntry, Entry, check_entry, split_lines
from busyapi.stream.state import PartitionState
from busyapi.strides import Strides
from busyapi.usage_json import render_usage

MAX_STREAM_BYTES = 4 << 20
"""Of each partition, for one page: more wait only if a flusher is behind."""
MIN_ENTRIES, MAX_ENTRIES = 4, 256
REPLY_BYTES = 1 << 20
"""About as much of the stream is read at a time: a reply counts against the server's memory."""
CONFIRM_SECONDS = 3.0
CONFIRM_INTERVAL_SECONDS = 0.05


class BufferedPage(NamedTuple):
    """What the stream has of a list."""

    strides: Strides
    items: list[Item]
    archived_through: Seq
    """Up to this seq everything is in the archive, and not in `items`."""
    through: Seq
    is_end: bool


async def read_buffered(request: ListRequest, partition: int, after: Seq) -> BufferedPage:
    """Read the usages that follow a seq; wait until those that match are confirmed.

    Raises:
        RedisUnavailable: Redis does not reply, or replicas do not confirm.
        NotSeeded: no flusher has accepted the Redis of the partition.
        UnknownVersion: a later version wrote an entry.
    """
    context = request.context
    end = monotonic() + CONFIRM_SECONDS
    while True:
        scan = _StreamScan(request, partition, after)
        state = await scan.run()
        confirmed = find_confirmed_seq(context, partition, state)
        unconfirmed = any(item.seq > confirmed for item in scan.items)
        if not unconfirmed:
            # Beyond it, other usages may get the seqs: the cursor must not pass them.
            through = min(scan.through, max(confirmed, scan.archived_through))
            strides = state.strides
            assert strides  # noqa: S101 - the scan has checked it
            return BufferedPage(
                strides, scan.items, scan.archived_through, Seq(through), scan.is_end
            )
        if monotonic() > end:
            raise RedisUnavailable
        if is_former_server(context, partition, state):
            await context.finder.close_reader(partition)
        await asyncio.sleep(CONFIRM_INTERVAL_SECONDS)


class _StreamScan:
    """One pass over the entries that follow a seq."""

    def __init__(self, request: ListRequest, partition: int, after: Seq) -> None:
        self._request, self._partition, self._after = request, partition, after
        self.items: list[Item] = []
        self.archived_through = self.through = after
        self.is_end = False

    async def run(self) -> PartitionState:
        """Read what the stream has at the beginning, and return the record as it is at the end."""
        state, entries = await self._read(self._after, MIN_ENTRIES)
        issued = state.seq or 0
        first = entries[0].first if entries else issued + 1
        self.archived_through = self.through = Seq(max(self._after, first - 1))
        server_id, size = state.server_id, 0
        while self.through < issued:
            size += self._take(entries, state)
            if not entries or entries[-1].last > self.through or size >= MAX_STREAM_BYTES:
                return state
            average = max(1, sum(len(entry.value) for entry in entries) // len(entries))
            count = max(MIN_ENTRIES, min(MAX_ENTRIES, REPLY_BYTES // average))
            state, entries = await self._read(self.through, count)
            if state.server_id != server_id:
                raise RedisUnavailable
        self.is_end = True
        return state

    def _take(self, entries: list[Entry], state: PartitionState) -> int:
        """Add the usages of consecutive entries, and return their bytes."""
        size = 0
        for entry in entries:
            if entry.first > self.through + 1:
                break  # what was between has been archived since the last read
            self.items += self._select(entry, state)
            self.through = entry.last
            size += len(entry.value)
        return size

    async def _read(self, after: Seq, count: int) -> tuple[PartitionState, list[Entry]]:
        finder = self._request.context.finder
        state, entries = await finder.read_entries(self._partition, Seq(after + 1), count)
        has_record = state.strides and (state.epoch or state.paused)
        if state.seq is None or not has_record:
            raise NotSeeded
        return state, entries

    def _select(self, entry: Entry, state: PartitionState) -> Iterator[Item]:
        assert state.strides  # noqa: S101 - `_read` has checked it
        try:
            checked = check_entry(entry)
        except BadEntry:
            return  # the flusher quarantines it
        query = self._request.query
        if not query.includes_time(checked.received_ms) or not query.may_have(checked.value):
            return
        seq = Seq(max(self.through, entry.first - 1))
        for lines in split_lines(checked, seq, 1 << 20, 1 << 20):
            for line in lines:
                seq = Seq(seq + 1)
                usage, stamp = split_stamp(line)
                if not query.includes(usage):
                    continue
                usage_id = state.strides.id_of(seq, self._partition)
                rendered = render_usage(usage_id, checked.received_ms, usage)
                if self._request.may_read(StampedUsage(rendered, stamp)):
                    yield Item(usage_id, seq, rendered)
