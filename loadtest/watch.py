"""Looks at the target while it is under load, in a thread; a look that fails is counted."""

import subprocess
import threading
import time
from http.client import HTTPException
from typing import Self

from loadtest.target import Sample, Target, Unreachable

JOIN_SECONDS = 60.0
TROUBLE = (
    OSError,
    HTTPException,
    ValueError,
    KeyError,
    Unreachable,
    subprocess.TimeoutExpired,
)


class Watch:
    """Runs within a `with`; the samples are there after it."""

    def __init__(self, target: Target, every: float) -> None:
        self.samples: list[Sample] = []
        self.missed = 0
        self._target = target
        self._every = every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        # At once, and once more at the end: the difference is what the run has cost.
        self._look()
        while not self._ended.wait(self._every):
            self._look()
        self._look()

    def _look(self) -> None:
        try:
            self.samples.append(self._target.sample(round(time.monotonic() - self._began, 2)))
        except TROUBLE:
            self.missed += 1
