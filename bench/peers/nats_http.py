"""An RSGI application answering 201 with the sequence of the post in a JetStream stream.

Granian serves it, the fastest HTTP server for Python among the peers. Each post is one message, and
is answered when the stream's leader has acknowledged it. Nothing waits for another post: as many
messages are in flight as there are requests. With NATS_GROUP a message has all posts that arrived
while the message before it was in flight, as an entry of busyapi has.

The deadline is that of busyapi, with the same answer.
"""

import asyncio
import json
import os
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js.api import StorageType, StreamConfig

STREAM, SUBJECT = "USAGES", "usages"
REPLICAS = 3
DEADLINE_SECONDS = 3.0
EXPIRY_INTERVAL_SECONDS = 0.1
START_SECONDS = 60.0
DEDUP_HEADER = "Nats-Msg-Id"
MAX_GROUP = 1 << 20
"""An id is the sequence of a message with many posts, and its place there."""

_HEADERS = [("content-type", "application/json")]
_UNKNOWN = b'{"status":503,"stored":"unknown"}'


class NotAcknowledged(Exception):
    """The stream's leader did not acknowledge in time, or refused."""


class Publisher:
    """Publishes over one connection. Acknowledgements arrive in any order."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._prefix = client.new_inbox()
        self._numbers = count()
        self._pending: dict[str, tuple[float, asyncio.Future[int]]] = {}

    async def start(self) -> None:
        """Subscribe to the acknowledgements."""
        await self._client.subscribe(f"{self._prefix}.*", cb=self._acknowledge)

    async def publish(self, body: bytes, key: str | None = None) -> int:
        """Publish a message; return its sequence, that of the first one of this key.

        Raises:
            NotAcknowledged: it may be stored.
        """
        reply = f"{self._prefix}.{next(self._numbers)}"
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pending[reply] = (monotonic(), future)
        headers = {DEDUP_HEADER: key} if key else None
        try:
            await self._client.publish(SUBJECT, body, reply=reply, headers=headers)
            return await future
        except Error as error:
            raise NotAcknowledged from error
        finally:
            self._pending.pop(reply, None)

    async def _acknowledge(self, message: Msg) -> None:
        _, future = self._pending.get(message.subject, (0.0, None))
        if future is None or future.done():
            return
        try:
            future.set_result(json.loads(message.data)["seq"])
        except (ValueError, KeyError):
            # An error, or "no responders", which has no body.
            future.set_exception(NotAcknowledged())

    async def expire_periodically(self) -> None:
        """Fail what is older than the deadline."""
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL_SECONDS)
            limit = monotonic() - DEADLINE_SECONDS
            # In the order in which they were sent.
            for sent, future in list(self._pending.values()):
                if sent > limit:
                    break
                if not future.done():
                    future.set_exception(NotAcknowledged())


class GroupPublisher(Publisher):
    """Publishes all posts that arrived while a message was in flight as the next one."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._queued: list[tuple[bytes, asyncio.Future[int]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def publish(self, body: bytes, key: str | None = None) -> int:
        """Queue a post; return the sequence of its message and its place there. Ignores the key."""
        del key
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queued.append((body, future))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_groups())
        return await future

    async def _send_groups(self) -> None:
        while group := self._queued:
            self._queued = []
            try:
                sequence = await super().publish(b"\n".join(body for body, _ in group))
            except NotAcknowledged as error:
                for _, future in group:
                    future.set_exception(error)
                continue
            for place, (_, future) in enumerate(group):
                future.set_result(sequence * MAX_GROUP + place)
        self._sending = None


async def open_stream(client: Client) -> None:
    """Create the stream. A cluster that has just started does not answer yet."""
    config = StreamConfig(
        STREAM, subjects=[SUBJECT], storage=StorageType.FILE, num_replicas=REPLICAS
    )
    async with asyncio.timeout(START_SECONDS):
        while True:
            with suppress(Error, TimeoutError):
                await client.jetstream().add_stream(config)
                return
            await asyncio.sleep(EXPIRY_INTERVAL_SECONDS)


class Application:
    """The RSGI application."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._start())

    async def _start(self) -> None:
        client = await nats.connect(
            os.environ["NATS_SERVERS"].split(),
            skip_subject_validation=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=EXPIRY_INTERVAL_SECONDS,
        )
        await open_stream(client)
        self._publisher = (GroupPublisher if "NATS_GROUP" in os.environ else Publisher)(client)
        await self._publisher.start()
        self._expiry = asyncio.create_task(self._publisher.expire_periodically())

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        if scope.method != "POST":
            protocol.response_empty(200, [])
            return
        body, key = await protocol(), scope.headers.get("idempotency-key")
        try:
            sequence = await self._publisher.publish(body, key)
        except NotAcknowledged:
            protocol.response_bytes(503, _HEADERS, _UNKNOWN)
        else:
            protocol.response_bytes(201, _HEADERS, b'{"id":%d}' % sequence)


app = Application()
