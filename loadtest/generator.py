"""The open loop: each request is sent at its planned time, even if earlier ones have no answer.

    planned    |  |    |  ||   |        the times are drawn before the run
    sent       |  |    |       |||      the server paused, every connection was busy:
    latency    from the planned time, so that it includes the wait for a connection

One thread, one epoll. `select` waits on it, because its timeout is in microseconds and epoll's in
milliseconds. A request without an answer is never sent again: it may be stored.
"""

import gc
import random
import select
import time
from array import array
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

from loadtest.answers import CREATED, NO_ANSWER, Connection

REOPEN_SECONDS = 0.05
"""The time between two tries to replace broken connections."""
LEAD_SECONDS = 0.1

NOT_SENT, UNKNOWN, REFUSED, OK = range(4)
"""The outcomes of a request."""


def plan_times(rate: float, seconds: float, *, even: bool = False, seed: int = 1) -> "array[float]":
    """Return the planned times in seconds from the start: Poisson arrivals, or one each 1/rate."""
    count = max(1, int(rate * seconds))
    if even:
        return array("d", (number / rate for number in range(count)))
    chance = random.Random(seed)  # noqa: S311 - no secret
    due = array("d", accumulate(chance.expovariate(1) for _ in range(count + 1)))
    # Stretch the arrivals so that they fill the time exactly and none is due after it.
    stretch = seconds / due.pop()
    return array("d", (entry * stretch for entry in due))


class Generator:
    """One run. The arrays have an element for each planned request."""

    def __init__(
        self, host: str, port: int, requests: Sequence[bytes], due: "array[float]", connections: int
    ) -> None:
        self.due = due
        self.outcomes = array("b", bytes(len(due)))
        self.statuses = array("h", bytes(2 * len(due)))
        self.latencies = array("d", bytes(8 * len(due)))
        self.ids = array("q")
        """The ids in the answers, in their order."""
        self.longest_queue = 0
        self.reopened = 0
        self.elapsed = 0.0
        self.started = 0.0
        """The time of the start, by the monotonic clock, which all processes share."""
        self._address = (host, port)
        self._requests = requests
        self._epoll = select.epoll()
        self._all: dict[int, Connection] = {}
        self._idle: deque[Connection] = deque()
        self._waiting: deque[int] = deque()
        self._broken = 0
        self._pending = 0
        for _ in range(connections):
            self._open()

    def _open(self) -> None:
        connection = Connection(*self._address)
        self._all[connection.sock.fileno()] = connection
        self._epoll.register(connection.sock, select.EPOLLIN)
        self._idle.append(connection)

    def run(self, grace: float) -> None:
        """Send all requests, and wait at most `grace` seconds for the last answers."""
        gc.disable()  # a collection would delay requests
        start = self.started = time.monotonic() + LEAD_SECONDS
        try:
            self._run(start, grace)
        finally:
            gc.enable()
            self.elapsed = time.monotonic() - start
            for entry in self._all.values():
                entry.sock.close()
            self._epoll.close()

    def _run(self, start: float, grace: float) -> None:
        due, planned, number, now = self.due, len(self.due), 0, 0.0
        end, reopen = due[-1] + grace, 0.0
        while now < end:
            now = time.monotonic() - start
            while number < planned and due[number] <= now:
                self._waiting.append(number)
                number += 1
            self._send_waiting()
            ready = self._epoll.poll(0)
            if not ready:
                if number == planned and not (self._pending or self._waiting):
                    break
                pause = due[number] - now if number < planned else 0.01
                select.select([self._epoll], [], [], max(0.0, min(pause, 0.01)))
                ready = self._epoll.poll(0)
            for fd, _ in ready:
                self._receive(self._all[fd], start)
            if self._broken and now >= reopen:
                self._replace_broken()
                reopen = now + REOPEN_SECONDS

    def _send_waiting(self) -> None:
        waiting, idle, requests = self._waiting, self._idle, self._requests
        self.longest_queue = max(self.longest_queue, len(waiting) - len(idle))
        while waiting and idle:
            connection, number = idle.popleft(), waiting.popleft()
            connection.number = number
            self.outcomes[number] = UNKNOWN
            self._pending += 1
            if not connection.send(requests[number % len(requests)]):
                self._drop(connection)

    def _receive(self, connection: Connection, start: float) -> None:
        if connection.number < 0:
            # No request is pending: the server closes the connection, perhaps after a 408.
            self._idle.remove(connection)
            self._drop(connection)
            return
        try:
            answer = connection.receive()
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self._drop(connection)
            return
        if answer is None:
            return
        number, connection.number = connection.number, -1
        self._pending -= 1
        self.latencies[number] = time.monotonic() - start - self.due[number]
        self.statuses[number] = answer.status
        if answer.status == CREATED:
            self.outcomes[number] = OK
            self.ids.append(answer.id)
        elif answer.refused:
            self.outcomes[number] = REFUSED
        if answer.closes_connection:
            self._drop(connection)
        else:
            self._idle.append(connection)

    def _drop(self, connection: Connection) -> None:
        """Drop a connection; the outcome of its pending request stays unknown."""
        if connection.number >= 0:
            self._pending -= 1
            self.statuses[connection.number] = NO_ANSWER
        del self._all[connection.sock.fileno()]
        connection.sock.close()
        self._broken += 1

    def _replace_broken(self) -> None:
        while self._broken:
            try:
                self._open()
            except OSError:
                return
            self._broken -= 1
            self.reopened += 1
