"""How far the archive is behind, watched from outside while the load runs.

Two answers to one question. The flusher's own metric is what operators see: the age of the oldest
usage that it has read. What it has not read yet it cannot know, so the counters in Valkey are
watched too, and the age follows from when they had which value:

    issued     100 ──── 250 ──── 400        when was usage 151 issued? between the 1st and 2nd look
    archived    90       90      150        so at the 3rd look it is about 1.7 looks old
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import NamedTuple, Self

import redis

from busyapi.stream.keys import PartitionKeys
from testkit.http1 import fetch
from testkit.servers import Server

EVERY_SECONDS = 0.2
ANSWER_SECONDS = 5.0
OLDEST = "busyapi_oldest_unarchived_seconds"


class Sample(NamedTuple):
    """One sample."""

    at: float
    issued: int
    archived: int
    metric: float
    """The age by the metric of the flusher."""


@dataclass(frozen=True)
class Lag:
    """The greatest of each over one run, until all was archived."""

    metric_seconds: float
    counted_seconds: float
    """The same age from the counters: what is not read yet is in it."""
    usages: int
    samples: int
    missed: int
    """Samples that got no answer."""

    @property
    def seconds(self) -> float:
        """The greater of the two ages."""
        return max(self.metric_seconds, self.counted_seconds)


def summarise(samples: Sequence[Sample], missed: int = 0) -> Lag:
    """Return the greatest value of each column."""
    return Lag(
        metric_seconds=round(max((sample.metric for sample in samples), default=0.0), 3),
        counted_seconds=round(max(ages(samples), default=0.0), 3),
        usages=max((sample.issued - sample.archived for sample in samples), default=0),
        samples=len(samples),
        missed=missed,
    )


def ages(samples: Sequence[Sample]) -> list[float]:
    """Return at each look the age of the oldest usage that was not archived, 0 if none.

    The time at which a seq was issued is interpolated between two looks. What was issued before
    the first look counts from there.
    """
    ages_ = []
    # Both counters only grow, so the look that saw a seq issued is never before the last one's.
    seen = 0
    for sample in samples:
        oldest = sample.archived + 1
        if sample.issued < oldest:
            ages_.append(0.0)
            continue
        while samples[seen].issued < oldest:
            seen += 1
        ages_.append(sample.at - _issued_at(samples, seen, oldest))
    return ages_


def _issued_at(samples: Sequence[Sample], seen: int, seq: int) -> float:
    after = samples[seen]
    if seen == 0:
        return after.at
    before = samples[seen - 1]
    share = (seq - before.issued) / (after.issued - before.issued)
    return before.at + share * (after.at - before.at)


class Watch:
    """Looks every 0.2 s, in a thread, within a `with`; `lag` is there after it."""

    def __init__(self, look: Callable[[], Sample]) -> None:
        self.samples: list[Sample] = []
        self.missed = 0
        self._look = look
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._once()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join(2 * ANSWER_SECONDS)

    def _run(self) -> None:
        while not self._ended.wait(EVERY_SECONDS):
            self._once()

    def _once(self) -> None:
        try:
            self.samples.append(self._look())
        except (OSError, HTTPException, ValueError, redis.RedisError):
            self.missed += 1

    @property
    def lag(self) -> Lag:
        """Return what the watch saw."""
        return summarise(self.samples, self.missed)


def looker(server: Server, flusher_port: int) -> Callable[[], Sample]:
    """Return a function that samples partition 0."""
    keys = PartitionKeys(0)
    client = server.client()

    def look() -> Sample:
        with client.pipeline(transaction=True) as both:
            both.get(keys.seq)
            both.hget(keys.state, "archived")
            issued, archived = both.execute()
        at = time.monotonic()
        text = fetch(flusher_port, "/metrics", seconds=ANSWER_SECONDS).body.decode()
        return Sample(at, int(issued or 0), int(archived or 0), metric_value(text, OLDEST))

    return look


def metric_value(text: str, name: str) -> float:
    """Return the first sample of a metric from the text of a scrape.

    Raises:
        ValueError: The text has no such metric.
    """
    # Parsing all of it, five times a second, would cost the run more than the look does.
    match = re.search(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    if not match:
        raise ValueError(f"no metric {name}")
    return float(match[1])
