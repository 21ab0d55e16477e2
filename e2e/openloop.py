"""An open loop of posts through an ingress: what is sent does not wait for what is answered.

Each request has a payload of its own, is sent at its time over a connection that is idle then (a
new one when none is), and is never repeated: a rolling upgrade must not need a second try.
"""

import asyncio
import json
import threading
import time
import uuid
from itertools import count

from e2e.measure import Figures, Sample, figures
from testkit.child_process import Lifetime
from testkit.history import History, Outcome, Request, digest
from testkit.http1 import Connection, NotSent
from testkit.load import classify_answer
from testkit.threads import CoroutineThread

TIMEOUT = 20.0
"""Seconds; the API answers 503 after 10."""
MOST = 2000
"""Requests under way: what is more has failed without being sent. A bound for this process."""
CATCH_UP = 1.0
"""Seconds that the sender may lag behind before it gives up what it missed."""


BATCH = 5
"""Usages of a batch, where the load is mixed."""


def render(path: str, host: str, body: bytes, key: str = "") -> bytes:
    """Render a POST for a host of the ingress."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    head += f"Idempotency-Key: {key}\r\n" if key else ""
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class OpenLoop(Lifetime):
    """Load in a thread of its own, within a `with`."""

    def __init__(self, port: int, host: str, rate: float, *, mixed: bool = False) -> None:
        self.port = port
        self.mixed = mixed
        """Whether posts are in turn single and batches, with and without a key."""
        self.host = host
        self.rate = rate
        """Requests a second; may be changed as it runs."""
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
        """Begin."""
        self.began = time.monotonic()
        self._thread.start()

    def stop(self) -> Figures:
        """Send nothing new, wait for what is under way, and sum up."""
        self._stopping.set()
        self._thread.join(TIMEOUT * 2)
        return figures(self.samples, self.began, self.ended)

    def close(self) -> None:
        """End it."""
        if self._thread.is_started:
            self.stop()

    async def _drive(self) -> None:
        async with asyncio.TaskGroup() as under_way:
            due = time.monotonic()
            while not self._stopping.is_set():
                # After a pause of the machine, a burst must not make up for it.
                due = max(due + 1 / self.rate, time.monotonic() - CATCH_UP)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                self._send(under_way, due)
            self.ended = time.monotonic()
        for connection in self._idle:
            connection.close()

    def _send(self, under_way: asyncio.TaskGroup, due: float) -> None:
        self.offered += 1
        if self.offered - len(self.samples) > MOST:
            self.samples.append(Sample(due, time.monotonic(), Outcome.REFUSED, 0))
        else:
            under_way.create_task(self._one(due))

    def _usage(self) -> dict[str, str]:
        return {
            "patientId": "100",
            "timestamp": "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",
            "medication": "Albuterol",
            "marker": f"{self._name}-{next(self._numbers)}",
        }

    def _request(self) -> tuple[bytes, int, list[dict[str, str]]]:
        """Return the next message, the size of its batch (0: it is single) and its usages."""
        turn = self.offered % 4 if self.mixed else 0
        batch = BATCH if turn > 1 else 0
        usages = [self._usage() for _ in range(batch or 1)]
        path = "/api/usages/batch" if batch else "/api/usages"
        body = json.dumps(usages if batch else usages[0]).encode()
        key = uuid.uuid4().hex if turn % 2 else ""
        return render(path, self.host, body, key), batch, usages

    async def _one(self, due: float) -> None:
        message, batch, usages = self._request()
        connection = self._idle.pop() if self._idle else Connection(self.port)
        sent, answer = time.monotonic(), None
        try:
            answer = await connection.ask(message, TIMEOUT)
        except NotSent:
            # Not a byte went out, so the checker need not know; a device would see a failure.
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
            )
        )
        self.samples.append(Sample(due, answered, outcome, status))
        self._idle.append(connection)
