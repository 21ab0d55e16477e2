"""Committers and flushers within the test's own process, against real servers.

Tests without HTTP, exit codes and kills are faster and see more details here than on a `Stack`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from busyapi.archive.config import ArchiveConfig
from busyapi.archive.unrecovered_folder import UnrecoveredFolder
from busyapi.archive.writer import PartitionWriter
from busyapi.commit.committer import Committer
from busyapi.commit.pending import AdmissionControl, AwaitedWrite, IdempotencyKey
from busyapi.commit.pool import CommitterPool
from busyapi.errors import BusyapiError, Refused
from busyapi.flusher.idempotency import IdempotencyKeeper
from busyapi.flusher.loop import Flusher
from busyapi.flusher.ownership import PartitionConfig, acquire_lease
from busyapi.flusher.replicas import ReplicaKeeper
from busyapi.flusher.seed import seed_partition
from busyapi.settings import Settings
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.servers import RedisServers
from busyapi.telemetry.metrics import FlusherMetrics
from busyapi.wiring import redis
from testkit.processes import Store

T = TypeVar("T")

USAGE_LINE = b'{"patientId":"100"}'


def endpoint_of(store: Store) -> Endpoint:
    """Return the endpoint that busyapi's own wiring makes for a store."""
    return redis.make_servers(Settings.from_environment(store.settings())).find(0)


async def poll_until(condition: Callable[[], T], what: str, *, seconds: float = 10.0) -> T:
    """Evaluate a condition until it is true, and return its value. Other tasks run meanwhile.

    Raises:
        TimeoutError: it did not become true.
    """
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:g} s still waiting for {what}")
        await asyncio.sleep(0.01)
    return value


class RecordingObserver:
    """An observer that records the events of a committer, in place of the metrics."""

    def __init__(self) -> None:
        self.errors: list[BusyapiError] = []
        self.usages = 0
        self.calls = 0
        self.confirmations: list[float] = []

    def record_commit(self, usages: int, seconds: float) -> None:
        """Count one commit."""
        del seconds
        self.usages += usages
        self.calls += 1

    def record_confirmation(self, seconds: float) -> None:
        """Record how long a batch waited for the replicas."""
        self.confirmations.append(seconds)

    def record_disconnect(self, error: BusyapiError) -> None:
        """Record the error that ended the committer's connection."""
        self.errors.append(error)


class _SignedWrite(AwaitedWrite):
    """A write whose result is one integer, so that tests compare lists of integers."""

    @property
    def signed_last(self) -> asyncio.Future[int]:
        """The future of the last seq, negative if replayed."""
        return cast("asyncio.Future[int]", self.future)

    def complete(self, last: int, *, replayed: bool = False) -> None:
        """Set the future's result, unless the test has cancelled it."""
        if not self.signed_last.done():
            self.signed_last.set_result(-last if replayed else last)


class CommitterHarness:
    """A committer with the admission control and the pool of an API process."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        tier: str = "fsync",
        min_replicas: int = 1,
        deadline: float = 10.0,
    ) -> None:
        self.failures = RecordingObserver()
        self.admission = AdmissionControl(100_000, 1 << 26)
        self.committer = Committer(
            endpoint,
            0,
            1,
            tier=tier,
            min_replicas=min_replicas,
            deadline=deadline,
            admission=self.admission,
            observer=self.failures,
        )
        self.pool = CommitterPool([self.committer], self.admission)

    def post(
        self, *lines: bytes, key: IdempotencyKey | None = None, stamp: bytes = b""
    ) -> asyncio.Future[int]:
        """Submit one request, and return the future of its signed last seq or its refusal."""
        write = _SignedWrite([line + stamp for line in lines], key, is_stamped=bool(stamp))
        try:
            self.pool.submit(write)
        except Refused as error:
            write.fail(error)
        return write.signed_last

    async def wait_until_ready(self, seconds: float = 10.0) -> None:
        """Wait for a checked connection."""
        await poll_until(
            lambda: self.committer.is_ready,
            f"a connection: {self.committer.last_error}",
            seconds=seconds,
        )

    async def wait_until_failed(self, times: int = 2) -> None:
        """Wait until this many more attempts to connect or to commit have failed."""
        goal = len(self.failures.errors) + times
        await poll_until(lambda: len(self.failures.errors) >= goal, f"{times} attempts to fail")


@asynccontextmanager
async def run_committer(endpoint: Endpoint, **options: Any) -> AsyncIterator[CommitterHarness]:
    """Run a committer, which may not be ready yet. An exception in it fails the test."""
    committer = CommitterHarness(endpoint, **options)
    task = asyncio.create_task(committer.committer.run())
    try:
        yield committer
    finally:
        failed = task.exception() if task.done() else None
        task.cancel()
        await asyncio.wait([task])
        committer.committer.fail_remaining()
    if failed:
        raise failed
    assert (committer.admission.count, committer.admission.bytes) == (0, 0)


def open_archive(
    archive: Path, *, bound: int = 1000, partitions: int = 1, segment_bytes: int = 1 << 26
) -> PartitionWriter:
    """Open partition 0 of an archive folder."""
    return PartitionWriter.recover(
        ArchiveConfig(archive, 0, partitions, bound, segment_bytes, 3600.0, retention_days=0)
    )


async def seed_once(
    endpoint: Endpoint,
    archive: Path,
    *,
    bound: int = 1000,
    tier: str = "fsync",
) -> str:
    """Seed the partition as a flusher does at its start, release it, and return the reason."""
    writer = open_archive(archive, bound=bound)
    partition = OwnedPartition(RedisServers(only=endpoint), 0, tier, writer.identity.archive_id)
    try:
        config = PartitionConfig(0, 1, bound, tier)
        await partition.connect()
        await acquire_lease(partition, writer.identity, config)
        replicas = ReplicaKeeper(endpoint, writer._folder, tier, 1)
        predecessors = await replicas.require_holder(partition, writer)
        keys = IdempotencyKeeper(3600, 1000)
        why = await seed_partition(partition, writer, config, keys, predecessors)
        end = time.monotonic() + 5
        while await replicas.update(partition, writer) and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # a new replica writes its first append-only file
        return why
    finally:
        writer.close()
        await partition.release()


def make_flusher(
    endpoint: Endpoint,
    archive: Path,
    *,
    bound: int = 1000,
    tier: str = "fsync",
    partitions: int = 1,
    segment_bytes: int = 1 << 26,
    retention_days: int = 0,
    key_seconds: float = 3600,
    max_keys: int = 1000,
    min_replicas: int = 1,
    metrics: FlusherMetrics | None = None,
) -> Flusher:
    """Return a flusher of partition 0."""
    archive_config = ArchiveConfig(
        archive, 0, partitions, bound, segment_bytes, 3600.0, retention_days
    )
    folder = UnrecoveredFolder(archive_config)

    def connect(archive_id: str) -> OwnedPartition:
        return OwnedPartition(RedisServers(only=endpoint), 0, tier, archive_id)

    config = PartitionConfig(0, partitions, bound, tier)
    keys = IdempotencyKeeper(key_seconds, max_keys)
    replicas = ReplicaKeeper(endpoint, archive_config.folder, tier, min_replicas)
    metrics = metrics or FlusherMetrics(tier)
    return Flusher(config, folder, connect, metrics, keys, replicas=replicas)


@asynccontextmanager
async def run_flusher(flusher: Flusher, *, ready: bool = True) -> AsyncIterator[Flusher]:
    """Run a flusher until the end of the `with`. An exception in it fails the test."""
    task = asyncio.create_task(flusher.run())
    try:
        if ready:
            await wait_until_flushing(flusher)
        yield flusher
    finally:
        flusher.stop()
        await asyncio.wait([task], timeout=15)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    task.result()


async def wait_until_flushing(flusher: Flusher, seconds: float = 10.0) -> None:
    """Wait until a flusher is ready."""
    try:
        await poll_until(
            lambda: not flusher.not_ready_reason, "the flusher to be ready", seconds=seconds
        )
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {flusher.not_ready_reason}") from None


async def wait_until_halted(flusher: Flusher) -> str:
    """Wait until a flusher halts, and return the reason that it reports."""
    await poll_until(flusher._metrics.halted._value.get, "the flusher to halt")
    return flusher.not_ready_reason


def make_lines(name: str, count: int) -> list[bytes]:
    """Return distinct lines."""
    return [b'{"marker":"%b-%d"}' % (name.encode(), n) for n in range(count)]


async def gather_results(futures: Iterable[asyncio.Future[int]]) -> list[int | BaseException]:
    """Wait for all results, and return them. A failed future gives its exception."""
    async with asyncio.timeout(30):
        return await asyncio.gather(*futures, return_exceptions=True)


def record_calls(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[object]:
    """Return a list to which each later call of a coroutine method appends its object."""
    calls: list[object] = []
    method = getattr(owner, name)

    async def call(self: object, *arguments: Any) -> Any:
        calls.append(self)
        return await method(self, *arguments)

    monkeypatch.setattr(owner, name, call)
    return calls
