"""Samples that a thread takes while a load runs."""

import threading
from collections.abc import Callable
from typing import Generic, Self, TypeVar

S = TypeVar("S")

JOIN_SECONDS = 60.0
"""A sample takes less time, also from a slow machine."""


class Sampler(Generic[S]):
    """Takes samples at an interval, within a `with`. They are kept after it.

    One is taken at the start and one at the end: their difference is the cost of the run.
    """

    def __init__(self, take: Callable[[], S], interval: float, *errors: type[Exception]) -> None:
        self.samples: list[S] = []
        self.missed = 0
        """Samples that failed with one of the errors."""
        self._take = take
        self._interval = interval
        self._errors = errors
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        self._add_sample()
        while not self._ended.wait(self._interval):
            self._add_sample()
        self._add_sample()

    def _add_sample(self) -> None:
        try:
            self.samples.append(self._take())
        except self._errors:
            self.missed += 1
