"""The lag of the archive, sampled from outside while the load runs.

It is measured in two ways. Operators see the flusher's own metric: the age of the oldest usage that
it has read. It does not know usages that it has not read yet. So the counters in Valkey are sampled
too, and the age follows from the times of their values:

    issued     100 ──── 250 ──── 400     usage 151 was issued between samples 1 and 2,
    archived    90       90      150     so at sample 3 it is about 1.7 intervals old
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import NamedTuple

import redis

from busyapi.stream.keys import PartitionKeys
from perf.sampler import Sampler
from testkit.http1 import fetch
from testkit.servers import Server

INTERVAL_SECONDS = 0.2
ANSWER_SECONDS = 5.0
OLDEST = "busyapi_oldest_unarchived_seconds"


class Sample(NamedTuple):
    """Both counters and the metric at one time."""

    at: float
    issued: int
    archived: int
    metric: float
    """The age by the metric of the flusher."""


@dataclass(frozen=True)
class Lag:
    """The greatest values of one run, until all was archived."""

    metric_seconds: float
    counted_seconds: float
    """The age from the counters: it includes usages that are not read yet."""
    usages: int
    samples: int
    missed: int
    """Samples that failed."""

    @property
    def seconds(self) -> float:
        """The greater of the two ages."""
        return max(self.metric_seconds, self.counted_seconds)


def summarise(samples: Sequence[Sample], missed: int = 0) -> Lag:
    """Return the greatest values of the samples."""
    return Lag(
        metric_seconds=round(max((sample.metric for sample in samples), default=0.0), 3),
        counted_seconds=round(max(ages(samples), default=0.0), 3),
        usages=max((sample.issued - sample.archived for sample in samples), default=0),
        samples=len(samples),
        missed=missed,
    )


def ages(samples: Sequence[Sample]) -> list[float]:
    """Return for each sample the age of the oldest usage that was not archived, 0 if all were.

    The time at which a seq was issued is interpolated between two samples. A usage that was issued
    before the first sample has its age from there.
    """
    result = []
    # Both counters only grow, so the search continues at the sample where the last one ended.
    seen = 0
    for sample in samples:
        oldest = sample.archived + 1
        if sample.issued < oldest:
            result.append(0.0)
            continue
        while samples[seen].issued < oldest:
            seen += 1
        result.append(sample.at - _issued_at(samples, seen, oldest))
    return result


def _issued_at(samples: Sequence[Sample], seen: int, seq: int) -> float:
    after = samples[seen]
    if seen == 0:
        return after.at
    before = samples[seen - 1]
    share = (seq - before.issued) / (after.issued - before.issued)
    return before.at + share * (after.at - before.at)


def sample_lag(server: Server, flusher_port: int) -> Sampler[Sample]:
    """Return a sampler of partition 0."""
    take = _make_sample_function(server, flusher_port)
    return Sampler(take, INTERVAL_SECONDS, OSError, HTTPException, ValueError, redis.RedisError)


def _make_sample_function(server: Server, flusher_port: int) -> Callable[[], Sample]:
    keys = PartitionKeys(0)
    client = server.client()

    def take() -> Sample:
        with client.pipeline(transaction=True) as pipeline:
            pipeline.get(keys.seq)
            pipeline.hget(keys.state, "archived")
            issued, archived = pipeline.execute()
        at = time.monotonic()
        text = fetch(flusher_port, "/metrics", seconds=ANSWER_SECONDS).body.decode()
        return Sample(at, int(issued or 0), int(archived or 0), metric_value(text, OLDEST))

    return take


def metric_value(text: str, name: str) -> float:
    """Return the first sample of a metric from the text of a scrape.

    Raises:
        ValueError: The text has no such metric.
    """
    # To parse all of it five times a second would cost more than the rest of the sample.
    match = re.search(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    if not match:
        raise ValueError(f"no metric {name}")
    return float(match[1])
