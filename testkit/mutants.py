"""Defects for `broken_build`: each function breaks the process that calls it, in one way.

Each mutant imports what it replaces, so mypy checks its type and a rename finds it.
"""

import asyncio
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from busyapi.api import app, fast_path, request_head
from busyapi.api.decode_scheduler import DecodeScheduler
from busyapi.api.fast_path import FastPathProtocol
from busyapi.api.fast_path_write import FastPathWrite
from busyapi.archive.block_builder import AppendStats
from busyapi.archive.format import UsageBatch
from busyapi.archive.holders import Holders, read_holders, write_holders
from busyapi.archive.writer import PartitionWriter
from busyapi.commit import in_flight
from busyapi.commit.connection_state import ConnectionState
from busyapi.commit.in_flight import InFlightBatch
from busyapi.decode.incremental import Incremental
from busyapi.errors import RedisUnavailable, Refused
from busyapi.failpoints import failpoint
from busyapi.flusher import holder_choice, holder_record, replicas
from busyapi.flusher.buffer import FlushBuffer
from busyapi.flusher.holder_check import ArchiveEvidence
from busyapi.flusher.holder_record import HolderRecord
from busyapi.stamp import encode_stamp, split_stamp
from busyapi.stream import replica_server, session
from busyapi.stream.connection import Command
from busyapi.stream.durability import ServerInfo
from busyapi.stream.entry import encode_stamped_entry
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.replica_server import ServerData
from busyapi.stream.scripts import COMMIT, COMMIT_KEYED
from busyapi.stream.session import Session
from busyapi.stream.state import PartitionState
from busyapi.web import http1
from busyapi.web.head import Head, MalformedHead, parse_head
from busyapi.web.http1 import HalfCloseProtocol, StrictHttp
from busyapi.web.protocol import DeadlineProtocol
from busyapi.web.read_turns import PausedConnection, ReadTurns
from testkit.broken_build import replace, replace_in_script

# --- usages that are lost or stored twice ---------------------------------------------------


def store_retries_again() -> None:
    """Store a retried batch as a new one."""
    replace_in_script(COMMIT, "is_retry", "return false")


def skip_writes() -> None:
    """Record a gap instead of each block after the first."""
    append = PartitionWriter.append

    def skip(self: PartitionWriter, batches: Sequence[UsageBatch]) -> AppendStats:
        if not self.cursor:
            return append(self, batches)
        self.record_gap(batches[-1].last, "not written")
        return AppendStats(0, 0, 0, 0.0, 0.0)

    replace(PartitionWriter, "append", skip)


def refuse_after_lost_replies() -> None:
    """Answer 503 "not stored" for usages that may be stored."""

    def refuse(self: InFlightBatch) -> None:
        for write in self.writes():
            write.fail(RedisUnavailable())

    replace(InFlightBatch, "mark_uncertain", refuse)


def give_all_one_stamp() -> None:
    """Put the stamp of an entry's first stamped usage behind all of its usages."""

    def encode(lines: list[bytes], received_ms: int) -> bytes:
        split = [split_stamp(line) for line in lines]
        first = next(stamp for _, stamp in split if stamp)
        alike = [usage + encode_stamp(first) for usage, _ in split]
        return encode_stamped_entry(alike, received_ms)

    replace(in_flight, "encode_stamped_entry", encode)


def publish_before_writing() -> None:
    """Publish usages as archived before they are written; failpoint `published`."""
    flush = FlushBuffer.flush

    async def publish_first(
        self: FlushBuffer, writer: PartitionWriter, partition: OwnedPartition
    ) -> tuple[int, list[AppendStats]]:
        await partition.publish(self._last_seq)
        failpoint("published")
        return await flush(self, writer, partition)

    replace(FlushBuffer, "flush", publish_first)


def commit_on_any_server() -> None:
    """Commit on a server that no flusher has seeded."""

    def is_seeded_for(state: PartitionState, server: ServerInfo) -> bool:
        return bool(state.server_id and server.server_id)

    replace(session, "is_seeded_for", is_seeded_for)
    for script in (COMMIT, COMMIT_KEYED):
        replace_in_script(script, "has_history", "return true")


def wait_for_no_replica() -> None:
    """Answer 201 before a replica has confirmed."""

    def wait_for_none(self: Session) -> list[Command]:
        del self
        return []

    def accept(self: Session, replies: list[Any]) -> str:
        del self, replies
        return ""

    replace(Session, "_confirm_commands", wait_for_none)
    replace(Session, "_find_unconfirmed", accept)


def wait_for_one_replica() -> None:
    """Answer 201 when one replica has confirmed, whatever their number."""

    def wait_for_one(self: Session) -> list[Command]:
        del self
        return [("WAIT", 1, session.REPLICA_WAIT_MS)]

    def accept_one(self: Session, replies: list[Any]) -> str:
        del self
        return "" if replies[0] >= 1 else "no replica has received it"

    replace(Session, "_confirm_commands", wait_for_one)
    replace(Session, "_find_unconfirmed", accept_one)


def keep_all_holders() -> None:
    """Let a failover promote every server that ever held everything."""

    def keep(folder: Path, holders: Holders) -> None:
        known = read_holders(folder).processes
        write_holders(folder, holders._replace(processes={**known, **holders.processes}))

    async def read_again(self: HolderRecord, *, again: bool = False) -> Holders:
        del again
        return read_holders(self._folder)

    replace(holder_record, "write_holders", keep)
    # It must not forget them in memory either.
    replace(HolderRecord, "read", read_again)


def trust_every_holder() -> None:
    """Let a failover promote a holder whatever data it has, by its offset."""

    def find_nothing(data: ServerData, holders: Holders, archive: ArchiveEvidence) -> str:
        del data, holders, archive
        return ""

    def find_no_doubt(data: ServerData, holders: Holders) -> str:
        del data, holders
        return ""

    def has_restarted(data: ServerData, holders: Holders) -> bool:
        del data, holders
        return False

    for module in (holder_choice, replicas):
        replace(module, "find_missing_data", find_nothing)
    replace(holder_choice, "find_doubt", find_no_doubt)
    replace(replicas, "has_restarted", has_restarted)


def accept_weak_replicas() -> None:
    """Let replicas confirm whatever their settings are."""

    def find_nothing(address: str, settings: dict[str, str], facts: dict[str, str]) -> str:
        del address, settings, facts
        return ""

    replace(replica_server, "_describe_problem", find_nothing)


def raise_one_refusal_twice() -> None:
    """Raise the same exception for every request, so that its traceback grows."""
    errors: dict[ConnectionState, Refused] = {}

    def keep(state: ConnectionState) -> Refused:
        return errors.setdefault(state, state._last_error)

    replace(ConnectionState, "last_error", property(keep))


# --- answers that differ --------------------------------------------------------------------


def shorten_idle_time() -> None:
    """Close a connection after one idle second. Correct by itself."""
    replace(app, "KEEP_ALIVE_SECONDS", 1)


def forget_stamps() -> None:
    """Store usages of the fast path without a stamp."""

    def add_stamp(self: FastPathWrite, stamp: bytes) -> None:
        del self, stamp

    replace(FastPathWrite, "add_stamp", add_stamp)


def count_waiting_as_idle() -> None:
    """Count the time in which a usage waits for Redis as idle time."""

    def check_timeouts(self: FastPathProtocol) -> None:
        super(FastPathProtocol, self).check_timeouts()  # type: ignore[no-untyped-call]

    replace(FastPathProtocol, "check_timeouts", check_timeouts)


def lose_order() -> None:
    """Answer a later request of a connection before an earlier one."""

    def data_received(self: FastPathProtocol, data: bytes) -> None:
        if not self._submit(data):
            super(FastPathProtocol, self).data_received(data)

    replace(FastPathProtocol, "data_received", data_received)


def take_any_key() -> None:
    """Accept any Idempotency-Key on the fast path."""
    replace(request_head, "_KEY", re.compile(b".*"))
    groups = request_head._GROUPS | {b"idempotency-key": b"(?P<key>.*)"}
    replace(request_head, "_GROUPS", groups)


def ignore_keys() -> None:
    """Ignore Idempotency-Key on the fast path."""

    def make_key(key: bytes, path: bytes, lines: list[bytes], credential: str) -> None:
        del key, path, lines, credential

    replace(fast_path, "make_key", make_key)


def ignore_close() -> None:
    """Ignore `Connection: close` on the fast path."""
    values = request_head._FAST_PATH_CONNECTIONS | {b"close"}
    replace(request_head, "_FAST_PATH_CONNECTIONS", values)


def read_without_a_break() -> None:
    """Decode a long body without a pause while other requests wait."""

    async def run(
        self: DecodeScheduler,
        work: Incremental[Any],
        sender: Callable[[], str],
        slow_seconds: float = 0.0,
    ) -> Any:
        del self, sender, slow_seconds
        try:
            while True:
                next(work)
        except StopIteration as end:
            return end.value

    replace(DecodeScheduler, "run", run)


def read_all_in_one_turn() -> None:
    """Read from every connection that has bytes, while all other clients wait."""

    def request(self: ReadTurns, connection: PausedConnection) -> None:
        del self
        connection.transport.resume_reading()

    replace(ReadTurns, "request", request)


def report_turns() -> None:
    """Print how many bytes each iteration of the loop receives. This breaks nothing."""
    receive = DeadlineProtocol.data_received
    size = 0

    def end_turn() -> None:
        nonlocal size
        sys.stderr.write(f"turn: {size}\n")
        size = 0

    def data_received(self: DeadlineProtocol, data: bytes) -> None:
        nonlocal size
        if not size:
            asyncio.get_running_loop().call_soon(end_turn)
        size += len(data)
        receive(self, data)

    replace(DeadlineProtocol, "data_received", data_received)


def forget_paused_connections() -> None:
    """Never read a connection again that has waited for its turn."""

    def begin_turn(self: ReadTurns) -> None:
        self._turn_is_scheduled = False
        self._used_bytes = 0
        self._waiting.clear()

    replace(ReadTurns, "_begin_turn", begin_turn)


# --- HTTP -----------------------------------------------------------------------------------


def close_at_half_close() -> None:
    """Close a connection as soon as the client half-closes it."""

    def eof_received(self: HalfCloseProtocol) -> bool:
        self._at_end = True
        return False

    replace(HalfCloseProtocol, "eof_received", eof_received)


def fail_on_malformed_heads() -> None:
    """Answer 500 instead of 400 to a malformed head."""

    def parse(raw: bytes) -> Head:
        try:
            return parse_head(raw)
        except MalformedHead as error:
            raise ZeroDivisionError from error

    replace(http1, "parse_head", parse)


def upgrade_to_websocket() -> None:
    """Accept a client's upgrade to a websocket."""
    prepare = StrictHttp._prepare_body

    def prepare_upgrade(self: StrictHttp, head: Head) -> None:
        prepare(self, head)
        self.upgrade_websocket = self.request.headers.get("upgrade") == "websocket"

    replace(StrictHttp, "_prepare_body", prepare_upgrade)
