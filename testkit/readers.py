"""Clients that read usages all the time, and remember how each read was answered."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException
from itertools import count
from typing import NamedTuple

from testkit.child_process import ManagedResource
from testkit.http1 import Tls, fetch


class Read(NamedTuple):
    """One read and its answer."""

    request_id: str
    usage: int
    status: int
    """0: the connection was lost."""


class Readers(ManagedResource):
    """Threads that read these usages in turn, until the end of a `with`."""

    def __init__(
        self,
        port: int,
        usages: list[int],
        headers: Mapping[str, str],
        *,
        threads: int = 3,
        pause_seconds: float = 0.01,
        tls: Tls | None = None,
    ) -> None:
        self.reads: list[Read] = []
        self._pause_seconds, self._tls = pause_seconds, tls
        self._port, self._usages, self._headers = port, usages, dict(headers)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._read, args=(number,), daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Start to read."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop reading, and wait for the last answers."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def count_answered(self, status: int = 200) -> int:
        """Return how many reads got this status."""
        return sum(read.status == status for read in list(self.reads))

    def _read(self, number: int) -> None:
        for at in count():
            if self._stop.wait(self._pause_seconds):
                return
            usage = self._usages[at % len(self._usages)]
            request_id, status = f"reader-{number}-{at}", 0
            with suppress(OSError, HTTPException):
                headers = {**self._headers, "x-request-id": request_id}
                path = f"/api/usages/{usage}"
                status = fetch(self._port, path, headers=headers, tls=self._tls).status
            self.reads.append(Read(request_id, usage, status))
