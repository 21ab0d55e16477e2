"""An open loop of posts through an ingress: requests do not wait for the answers of others.

Each request has its own payload and is sent at its planned time, over an idle connection or a new
one. It is never repeated: a rolling upgrade must not need a retry.
"""

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Sequence
from itertools import count

from e2e.measure import Figures, Sample, summarise
from testkit.child_process import ManagedResource
from testkit.history import History, Outcome, Request, digest
from testkit.http1 import Connection, NotSent, Tls
from testkit.load import classify_answer
from testkit.stamping import StampedClient
from testkit.threads import CoroutineThread

REQUEST_TIMEOUT_SECONDS = 20.0
"""The API answers 503 after 10 seconds."""
MAX_PENDING = 2000
"""Pending requests. Above this limit, a request fails without being sent."""
MAX_CATCH_UP_SECONDS = 1.0
"""A request that is due longer ago than this is dropped."""

ANONYMOUS = StampedClient("", "")
BATCH_USAGES = 5
"""Usages in a batch of a mixed load."""


def render(path: str, host: str, body: bytes, *, key: str = "", token: str = "") -> bytes:
    """Render a POST for a host of the ingress."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    head += f"Idempotency-Key: {key}\r\n" if key else ""
    head += f"Authorization: Bearer {token}\r\n" if token else ""
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class OpenLoop(ManagedResource):
    """A load in its own thread, within a `with`."""

    def __init__(
        self,
        port: int,
        host: str,
        rate: float,
        *,
        mixed: bool = False,
        tls: Tls | None = None,
        clients: Sequence[StampedClient] = (),
        keep_alive: bool = True,
    ) -> None:
        self.port = port
        self.tls = tls
        self.clients = tuple(clients)
        """The clients whose credentials requests have in turn. They may change during the run."""
        self.keep_alive = keep_alive
        """Whether a connection is used again. Otherwise each request has a new one."""
        self.mixed = mixed
        """Whether the load alternates between single posts and batches, with and without a key."""
        self.host = host
        self.rate = rate
        """Requests a second. It may be changed during the run."""
        self.history = History()
        self.samples: list[Sample] = []
        self.offered = 0
        self.began = 0.0
        self.ended = 0.0
        self._idle: list[Connection] = []
        self._name = uuid.uuid4().hex[:12]
        self._numbers = count()
        self._stopping = threading.Event()
        self._thread = CoroutineThread(self._drive, f"load of {host}")

    def start(self) -> None:
        """Start the load."""
        self.began = time.monotonic()
        self._thread.start()

    def stop(self) -> Figures:
        """Stop sending, wait for pending requests, and return the figures."""
        self._stopping.set()
        self._thread.join(REQUEST_TIMEOUT_SECONDS * 2)
        return summarise(self.samples, self.began, self.ended)

    def close(self) -> None:
        """Stop the load."""
        if self._thread.is_started:
            self.stop()

    async def _drive(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            due = time.monotonic()
            while not self._stopping.is_set():
                # No burst follows a pause of the machine.
                due = max(due + 1 / self.rate, time.monotonic() - MAX_CATCH_UP_SECONDS)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                self._send(tasks, due)
            self.ended = time.monotonic()
        for connection in self._idle:
            connection.close()

    def _send(self, tasks: asyncio.TaskGroup, due: float) -> None:
        self.offered += 1
        if self.offered - len(self.samples) > MAX_PENDING:
            self.samples.append(Sample(due, time.monotonic(), Outcome.REFUSED, 0))
        else:
            tasks.create_task(self._post(due))

    def _usage(self) -> dict[str, str]:
        return {
            "patientId": "100",
            "timestamp": "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",
            "medication": "Albuterol",
            "marker": f"{self._name}-{next(self._numbers)}",
        }

    def _request(self, client: StampedClient) -> tuple[bytes, int, list[dict[str, str]]]:
        """Return the next message, the size of its batch (0 for a single post) and its usages."""
        turn = self.offered % 4 if self.mixed else 0
        batch = BATCH_USAGES if turn > 1 else 0
        usages = [self._usage() for _ in range(batch or 1)]
        path = "/api/usages/batch" if batch else "/api/usages"
        body = json.dumps(usages if batch else usages[0]).encode()
        key = uuid.uuid4().hex if turn % 2 else ""
        return render(path, self.host, body, key=key, token=client.token), batch, usages

    async def _post(self, due: float) -> None:
        client = self.clients[self.offered % len(self.clients)] if self.clients else ANONYMOUS
        message, batch, usages = self._request(client)
        connection = self._idle.pop() if self._idle else Connection(self.port, tls=self.tls)
        sent, answer = time.monotonic(), None
        try:
            answer = await connection.ask(message, REQUEST_TIMEOUT_SECONDS)
        except NotSent:
            # No byte was sent, so the history has no request. For the device it failed.
            self.samples.append(Sample(due, time.monotonic(), Outcome.REFUSED, 0))
            return
        except (OSError, EOFError, ValueError):
            connection.close()
        answered = time.monotonic()
        outcome, ids = classify_answer(answer, batch)
        status = answer.status if answer else 0
        self.history.add(
            Request(
                digests=tuple(map(digest, usages)),
                outcome=outcome,
                ids=ids,
                status=status,
                sent=sent,
                answered=answered,
                writer=client.writer,
            )
        )
        self.samples.append(Sample(due, answered, outcome, status))
        if self.keep_alive:
            self._idle.append(connection)
        else:
            connection.close()
