"""The systems whose primary `bench.kill_history` kills: three servers behind an HTTP port."""

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NoMessage

from bench.peers.nats_cluster import NatsCluster, NatsServer
from bench.peers.nats_http import SUBJECT
from testkit.archive_reader import Archive, Line
from testkit.checker import Verdict, check_history
from testkit.history import History, digest
from testkit.replicated import STEP_SECONDS, ReplicatedStack, lose, return_to
from testkit.servers import Server
from testkit.waiting import wait_until

PAUSE_SECONDS = 1.5
"""How long a follower is paused before the primary is killed: too short for its removal."""
LEADERLESS_SECONDS = 15.0
"""Longer than any election of NATS takes (4 to 9 seconds)."""
FETCH_MESSAGES, FETCH_SECONDS = 1000, 2.0


class System(ABC):
    """Three servers: a primary, which NATS calls the leader of the stream, and two followers."""

    title: str
    port: int

    @abstractmethod
    def __init__(self, folder: Path) -> None:
        """Prepare it in a folder."""

    @abstractmethod
    @contextmanager
    def running(self) -> Iterator[None]:
        """Run everything."""
        yield

    @abstractmethod
    def lose_primary(self) -> None:
        """Kill the primary and delete its volume; return it when another server leads."""

    @abstractmethod
    def promote_paused(self) -> None:
        """Pause a follower for a while; lose the primary, and let only that follower take over.

        The other follower is paused meanwhile.
        """

    @abstractmethod
    def wait_until_whole(self) -> None:
        """Wait until every server has everything."""

    @abstractmethod
    def check(self, history: History) -> Verdict:
        """Compare what is stored with the answers, at the end."""


class Busyapi(System):
    """busyapi in the tier `replicated`, with Sentinels."""

    title = "busyapi, replicated"

    def __init__(self, folder: Path) -> None:
        self._replicated = ReplicatedStack(folder, "valkey")
        self._sentinels = self._replicated.sentinels

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run everything."""
        with self._replicated.running():
            self.port = self._replicated.stack.port
            yield

    def lose_primary(self) -> None:
        """Kill the primary and delete its volume; return it when another server leads."""
        old = self._sentinels.primary()
        lose(old)
        return_to(old, self._sentinels.wait_for_failover(old, STEP_SECONDS))

    def promote_paused(self) -> None:
        """Let a follower take over that was paused before."""
        old, paused, other = self._pause_follower()
        lose(old)
        other.pause()
        paused.resume()
        new = self._sentinels.wait_for_failover(old, STEP_SECONDS)
        other.resume()
        return_to(old, new)

    def _pause_follower(self) -> tuple[Server, Server, Server]:
        """Pause a replica for a while; return the primary, that replica, and the other one."""
        old, (paused, other) = self._sentinels.primary(), self._replicated.replicas()
        paused.pause()
        time.sleep(PAUSE_SECONDS)
        return old, paused, other

    def wait_until_whole(self) -> None:
        """Wait until every server has everything."""
        try:
            self._replicated.wait_for_holders()
        except TimeoutError as error:
            (flusher,) = self._replicated.stack.flushers
            raise TimeoutError(f"{error}\n{flusher.tail()}") from None

    def check(self, history: History) -> Verdict:
        """Compare the archive with the answers, at the end."""
        self._replicated.history = history
        return self._replicated.finish()


class JetStream(System):
    """NATS JetStream with three replicas of the stream."""

    title = "NATS JetStream R3, sync always"

    def __init__(self, folder: Path) -> None:
        self._cluster = NatsCluster(folder)
        self.port = self._cluster.port

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run everything."""
        with self._cluster:
            yield

    @property
    def url(self) -> str:
        """The address of the leader."""
        return f"nats://127.0.0.1:{self._wait_for_leader().port}"

    def _wait_for_leader(self, seconds: float = STEP_SECONDS) -> NatsServer:
        what = f"a leader of the stream of {self._cluster}"
        leader, *_ = wait_until(self._cluster.find_leaders, what, seconds=seconds)
        return leader

    def lose_primary(self) -> None:
        """Kill the leader and delete its volume; return it when another server leads."""
        old = self._wait_for_leader()
        old.lose()
        self._wait_for_leader()
        old.spawn()

    def promote_paused(self) -> None:
        """Let a follower take over that was paused before.

        Only a majority could elect it, so the former leader is back, without data.
        """
        old, paused, other = self._pause_follower()
        old.lose()
        other.pause()
        paused.resume()
        old.spawn()
        with suppress(TimeoutError):
            self._wait_for_leader(LEADERLESS_SECONDS)
        other.resume()
        self._wait_for_leader()

    def _pause_follower(self) -> tuple[NatsServer, NatsServer, NatsServer]:
        """Pause a follower for a while; return the leader, that follower, and the other one."""
        old = self._wait_for_leader()
        paused, other = (server for server in self._cluster.servers if server is not old)
        paused.pause()
        time.sleep(PAUSE_SECONDS)
        return old, paused, other

    def wait_until_whole(self) -> None:
        """Wait until every server has everything."""
        self._cluster.wait_until_healthy(STEP_SECONDS)

    def check(self, history: History) -> Verdict:
        """Compare the stream with the answers, at the end."""
        archive = Archive()
        archive.partition(0).lines += asyncio.run(self._read_lines())
        return check_history(history, archive)

    async def _read_lines(self) -> list[Line]:
        client = await nats.connect(self.url)
        try:
            return [
                Line(message.metadata.sequence.stream, digest(json.loads(message.data)), SUBJECT)
                async for message in _read_stream(client)
            ]
        finally:
            await client.close()


async def _read_stream(client: Client) -> AsyncIterator[Msg]:
    """Yield all messages in order."""
    subscription = await client.jetstream().pull_subscribe(SUBJECT, durable="checker")
    while True:
        try:
            messages = await subscription.fetch(FETCH_MESSAGES, FETCH_SECONDS)
        except NoMessage:
            return
        for message in messages:
            await message.ack()
            yield message
