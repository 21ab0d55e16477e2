"""The load client: posts usages over many connections and records the outcomes in a history.

Each connection sends its next request after it has read the previous answer. A request that could
not be sent, because no server listened, is sent later; until then it is not in the history. A
refused request is recorded, and the next request has new usages. A request of unknown outcome is
recorded as unknown, unless it has an Idempotency-Key: then it is sent again under the same key. If
any attempt ended unknown, a later refusal does not change that.
"""

import asyncio
import json
import threading
import time
import uuid
from http import HTTPStatus
from itertools import count
from typing import Any

from testkit.api_client import USAGE
from testkit.child_process import ManagedResource
from testkit.history import History, Outcome, Request, digest
from testkit.http1 import Answer, Connection, NotSent, render_post
from testkit.log_leaks import MARK
from testkit.threads import CoroutineThread

PAUSE_SECONDS = 0.02
"""Before a client continues after a refusal or a lost connection."""

PAUSE_AFTER_201_SECONDS = 0.01
"""Without this pause the client uses all of the machine's CPU and other tests wait. Use 0
where a process must be killed during a request."""

MAX_TRIES = 200
"""Of one request with an Idempotency-Key. After these its outcome stays unknown."""


class Load(ManagedResource):
    """Load from a separate thread, from the start of a `with` to its end.

    With `requests` or `seconds` the load ends by itself after these; `finish` waits for that.
    After each 201 a connection waits for `pause_after_201` seconds. `writer` is what the archive
    must have in the stamp of each usage, because of the `token`.
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
        pause_after_201: float = PAUSE_AFTER_201_SECONDS,
        history: History | None = None,
        token: str = "",
        writer: str = "",
    ) -> None:
        self.port = port
        self.connections = connections
        self.batch = batch
        self.keys = keys
        self.timeout = timeout
        self.pause_after_201 = pause_after_201
        self.token = token
        self.writer = writer
        self.history = History() if history is None else history
        self._seconds = seconds
        self._left = iter(range(requests)) if requests is not None else count()
        self._name = uuid.uuid4().hex[:12]
        self._usages = count()
        self._stopping = threading.Event()
        self._thread = CoroutineThread(self._drive, f"load of port {port}")

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self) -> History:
        """Send no new request, wait for the remaining answers, and return the history."""
        self._stopping.set()
        return self._join(self.timeout * 2)

    def finish(self, seconds: float = 60.0) -> History:
        """Wait until the load ends by itself, and return the history.

        Raises:
            TimeoutError: it has not ended `seconds` after it was due.
        """
        return self._join((self._seconds or 0) + seconds)

    def _join(self, seconds: float) -> History:
        self._thread.join(seconds)
        return self.history

    def close(self) -> None:
        """Stop it, and raise the client's own error if there was one."""
        if self._thread.is_started:
            self.stop()

    async def _drive(self) -> None:
        if self._seconds is not None:
            asyncio.get_running_loop().call_later(self._seconds, self._stopping.set)
        async with asyncio.TaskGroup() as connections:
            for _ in range(self.connections):
                connections.create_task(self._post_usages())

    async def _post_usages(self) -> None:
        async with Connection(self.port) as connection:
            while not self._stopping.is_set() and next(self._left, None) is not None:
                request = await self._send_until_known(connection)
                if request is None:
                    return
                self.history.add(request)
                created = request.outcome is Outcome.OK
                if pause := self.pause_after_201 if created else PAUSE_SECONDS:
                    await asyncio.sleep(pause)

    def _usage(self) -> dict[str, str]:
        return {**USAGE, "marker": f"{self._name}-{next(self._usages)}"}

    def _message(self, usages: list[dict[str, str]]) -> bytes:
        headers = {"idempotency_key": f"{MARK}-{uuid.uuid4().hex}"} if self.keys else {}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        if self.batch:
            return render_post("/api/usages/batch", json.dumps(usages).encode(), **headers)
        return render_post("/api/usages", json.dumps(usages[0]).encode(), **headers)

    async def _send_until_known(self, connection: Connection) -> Request | None:
        """Send a request until its outcome is known or final. Return None if it was never sent."""
        usages = [self._usage() for _ in range(self.batch or 1)]
        message = self._message(usages)
        digests = tuple(map(digest, usages))
        request: Request | None = None
        for _ in range(MAX_TRIES):
            attempt = await self._send(connection, message)
            if attempt is None:
                break
            sent, answer = attempt
            outcome, ids = classify_answer(answer, self.batch)
            if request and outcome is Outcome.REFUSED:
                # Only this attempt was refused. An earlier one may have stored it.
                outcome = Outcome.UNKNOWN
            request = Request(
                digests=digests,
                outcome=outcome,
                ids=ids,
                status=answer.status if answer else 0,
                sent=request.sent if request else sent,
                answered=time.monotonic(),
                writer=self.writer,
            )
            if outcome is not Outcome.UNKNOWN or not self.keys:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        return request

    async def _send(
        self, connection: Connection, message: bytes
    ) -> tuple[float, Answer | None] | None:
        """Return the send time and the answer, if any. Return None if it was never sent."""
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
    """Return the outcome of a request with this answer, and the ids of its usages.

    A 201 without readable ids is an acknowledgement too: the checker reports it.
    """
    if answer is None:
        return Outcome.UNKNOWN, ()
    members = _parse_object(answer.body)
    if answer.status == HTTPStatus.CREATED:
        ids = members.get("ids") if batch else [members.get("id")]
        if isinstance(ids, list) and all(type(usage_id) is int for usage_id in ids):
            return Outcome.OK, tuple(ids)
        return Outcome.OK, ()
    stored_no = answer.status == HTTPStatus.SERVICE_UNAVAILABLE and members.get("stored") == "no"
    if stored_no or HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Outcome.REFUSED, ()
    return Outcome.UNKNOWN, ()


def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
