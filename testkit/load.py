"""The load client: posts usages over many connections and writes down what it was told.

Each connection sends its next request when it has the last one's answer. A request that could not
be sent, because nobody listened, is sent later and is in no history. One that was refused is
written down and the next usage is another one. One that ends unknown is written down as such,
unless it has an Idempotency-Key: then it is repeated under the same key, and once any try of it
ended unknown, no refusal of a later one can make it known again.
"""

import asyncio
import json
import threading
import time
import uuid
from http import HTTPStatus
from itertools import count
from typing import Any

from testkit.child_process import Lifetime
from testkit.history import History, Outcome, Request, digest
from testkit.http1 import Answer, Connection, NotSent, render_post
from testkit.log_leaks import MARK
from testkit.threads import CoroutineThread

PAUSE_SECONDS = 0.02
"""Seconds before a client that was refused or cut off goes on."""

REST_SECONDS = 0.01
"""Seconds after a 201. Without a rest the client alone takes what a machine has, and every test
beside it waits. Where a death must find something under way, it is 0."""

MAX_TRIES = 200
"""Of one request with an Idempotency-Key, until it is left unknown."""


class Load(Lifetime):
    """Load in a thread of its own, from the entry of a `with` to its end.

    It ends by itself after `requests` requests or `seconds`, if given; then `finish` waits for it.
    After each 201 a connection waits for `rest` seconds.
    """

    def __init__(
        self,
        port: int,
        *,
        connections: int = 16,
        batch: int = 0,
        keys: bool = False,
        requests: int | None = None,
        seconds: float | None = None,
        timeout: float = 20.0,
        rest: float = REST_SECONDS,
        history: History | None = None,
    ) -> None:
        self.port = port
        self.connections = connections
        self.batch = batch
        self.keys = keys
        self.timeout = timeout
        self.rest = rest
        self.history = History() if history is None else history
        self._seconds = seconds
        self._left = iter(range(requests)) if requests is not None else count()
        self._name = uuid.uuid4().hex[:12]
        self._usages = count()
        self._stopping = threading.Event()
        self._thread = CoroutineThread(self._drive, f"load of port {port}")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> History:
        """Send nothing new, wait for the answers under way, and return the history."""
        self._stopping.set()
        return self._join(self.timeout * 2)

    def finish(self, seconds: float = 60.0) -> History:
        """Wait until the requests or seconds asked for are over, and return the history.

        Raises:
            TimeoutError: they are not over.
        """
        return self._join((self._seconds or 0) + seconds)

    def _join(self, seconds: float) -> History:
        self._thread.join(seconds)
        return self.history

    def close(self) -> None:
        """End it, and raise what went wrong in the client itself."""
        if self._thread.is_started:
            self.stop()

    async def _drive(self) -> None:
        if self._seconds is not None:
            asyncio.get_running_loop().call_later(self._seconds, self._stopping.set)
        async with asyncio.TaskGroup() as connections:
            for _ in range(self.connections):
                connections.create_task(self._converse())

    async def _converse(self) -> None:
        async with Connection(self.port) as connection:
            while not self._stopping.is_set() and next(self._left, None) is not None:
                request = await self._one(connection)
                if request is None:
                    return
                self.history.add(request)
                if pause := self.rest if request.outcome is Outcome.OK else PAUSE_SECONDS:
                    await asyncio.sleep(pause)

    def _usage(self) -> dict[str, str]:
        return {
            "patientId": f"{MARK}-100",
            "timestamp": "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",
            "medication": "Albuterol",
            "marker": f"{self._name}-{next(self._usages)}",
        }

    def _message(self, usages: list[dict[str, str]]) -> bytes:
        headers = {"idempotency_key": f"{MARK}-{uuid.uuid4().hex}"} if self.keys else {}
        if self.batch:
            return render_post("/api/usages/batch", json.dumps(usages).encode(), **headers)
        return render_post("/api/usages", json.dumps(usages[0]).encode(), **headers)

    async def _one(self, connection: Connection) -> Request | None:
        """Send one request until nothing more can be learned of it; None: it never was sent."""
        usages = [self._usage() for _ in range(self.batch or 1)]
        message = self._message(usages)
        digests = tuple(map(digest, usages))
        request: Request | None = None
        for _ in range(MAX_TRIES):
            tried = await self._send(connection, message)
            if tried is None:
                break
            sent, answer = tried
            outcome, ids = classify_answer(answer, self.batch)
            if request and outcome is Outcome.REFUSED:
                # True of this try alone: an earlier one may have stored it.
                outcome = Outcome.UNKNOWN
            request = Request(
                digests=digests,
                outcome=outcome,
                ids=ids,
                status=answer.status if answer else 0,
                sent=request.sent if request else sent,
                answered=time.monotonic(),
            )
            if outcome is not Outcome.UNKNOWN or not self.keys:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        return request

    async def _send(
        self, connection: Connection, message: bytes
    ) -> tuple[float, Answer | None] | None:
        """Return when it was sent and its answer, if any; None: stopped before it could be."""
        while not self._stopping.is_set():
            sent = time.monotonic()
            try:
                return sent, await connection.ask(message, self.timeout)
            except NotSent:
                await asyncio.sleep(PAUSE_SECONDS)
            except (OSError, EOFError, ValueError):
                return sent, None
        return None


def classify_answer(answer: Answer | None, batch: int) -> tuple[Outcome, tuple[int, ...]]:
    """Return what an answer, or none, says about the usages sent, and their ids.

    A 201 without readable ids is still an acknowledgement: the checker reports it.
    """
    if answer is None:
        return Outcome.UNKNOWN, ()
    said = _members(answer.body)
    if answer.status == HTTPStatus.CREATED:
        ids = said.get("ids") if batch else [said.get("id")]
        if isinstance(ids, list) and all(type(each) is int for each in ids):
            return Outcome.OK, tuple(ids)
        return Outcome.OK, ()
    stored_no = answer.status == HTTPStatus.SERVICE_UNAVAILABLE and said.get("stored") == "no"
    if stored_no or HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Outcome.REFUSED, ()
    return Outcome.UNKNOWN, ()


def _members(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
