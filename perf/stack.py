"""busyapi as a contender: Valkey, API processes and a flusher, with an archive on disk."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from busyapi.dev.program import VALKEY
from perf import archive_ids
from perf.contender import Contender
from perf.lag import Sample, sample_lag
from perf.load import Load
from perf.machine import versions
from perf.reconcile import Counts
from perf.sampler import Sampler
from testkit.child_process import Child
from testkit.http1 import fetch
from testkit.processes import Stack
from testkit.servers import Server

REWRITE_SIZE = "auto-aof-rewrite-min-size"
"""The setting that the bundled Valkey has and a server of the tests has not."""
BUNDLED_CONFIG = (f"{REWRITE_SIZE} {VALKEY[REWRITE_SIZE]}",)
SETTLE_SECONDS = 90.0
"""A full buffer of a million usages is archived in less time, also on a slow disk."""
MAX_UNCHANGED_SECONDS = 10.0
"""Counts that disagree and do not change for this time will not agree later."""
SETTLE_INTERVAL_SECONDS = 0.3


class Totals(NamedTuple):
    """The counts of a stack's running parts at one time, since the start."""

    statuses: Counter[int]
    """Requests of the load's path by status."""
    fast_path: int | None
    """Those that the fast path answered; None if the version does not count them."""
    stored: int
    counted: int
    archived: int

    @property
    def settled(self) -> bool:
        """Return whether all usages are archived."""
        return self.stored == self.counted == self.archived


class BusyapiStack(Contender):
    """A complete stack with default settings."""

    def __init__(self, folder: Path, apis: int, settings: Mapping[str, str] | None = None) -> None:
        self.server = Server(folder / "valkey", config=BUNDLED_CONFIG)
        self.stack = Stack(folder / "stack", self.server, apis=apis, settings=settings)
        self.port = self.stack.port
        self._running = ExitStack()

    @property
    def processes(self) -> dict[str, Child]:
        """Return the processes, those of the API first."""
        return {
            **{f"api-{n}": api for n, api in enumerate(self.stack.apis)},
            "flusher": self.stack.flushers[0],
            "valkey": self.server,
        }

    def start(self) -> None:
        """Start Valkey, then the other parts."""
        self._running.enter_context(self.server)
        self._running.enter_context(self.stack)

    def close(self) -> None:
        """Stop all, Valkey last."""
        self._running.close()

    def versions(self) -> dict[str, str]:
        """Return the versions of the software."""
        return versions(self.server)

    def sample_lag(self) -> Sampler[Sample]:
        """Return a sampler of its lag."""
        return sample_lag(self.server, self.stack.flushers[0].port)

    def read_totals(self, load: Load) -> Totals:
        """Read the counts of every part."""
        scrapes = [fetch(api.scrape_port, "/metrics").body.decode() for api in self.stack.apis]
        count = self._count()
        return Totals(
            # The requests of this function use other paths.
            statuses=sum((count_statuses(scrape, load.path) for scrape in scrapes), Counter()),
            fast_path=count_fast_path(scrapes, load.path),
            stored=sum(int(api.read_metric("busyapi_usages_total")) for api in self.stack.apis),
            counted=count["count"],
            archived=count["archived"],
        )

    def _count(self) -> dict[str, int]:
        answer = fetch(self.stack.port, "/api/usages/count")
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(f"{self} does not count: {answer.status} {answer.body!r}")
        count: dict[str, int] = answer.json()
        return count

    def settle(self, load: Load) -> Totals:
        """Wait until two samples are equal and all is archived; give up if nothing changes.

        One sample is not enough: requests that wrk sent at its end may still arrive.
        """
        end = time.monotonic() + SETTLE_SECONDS
        now, changed = self.read_totals(load), time.monotonic()
        while time.monotonic() < min(end, changed + MAX_UNCHANGED_SECONDS):
            time.sleep(SETTLE_INTERVAL_SECONDS)
            before, now = now, self.read_totals(load)
            if now != before:
                changed = time.monotonic()
            elif now.settled:
                break
        return now

    def finish(self, load: Load, *, seen: int, cut_off: int, errors: int) -> Counts:
        """Stop the stack cleanly, and count the usages on disk."""
        totals = self.settle(load)
        for entry in [*self.stack.apis, *self.stack.flushers]:
            entry.stop()
        archived = archive_ids.count_lines(self.stack.archive)
        return Counts(
            seen=seen,
            cut_off=cut_off,
            sent=totals.statuses.total() * load.usages,
            stored=totals.stored,
            counted=totals.counted,
            archived=totals.archived,
            lines=archived.lines,
            fault=archived.fault,
            statuses=dict(totals.statuses),
            errors=errors,
        )


def count_statuses(scrape: str, path: str) -> Counter[int]:
    """Count the answers to a path by status, from the text of a scrape."""
    counts: Counter[int] = Counter()
    for family in text_string_to_metric_families(scrape):
        for sample in family.samples:
            if sample.name == "busyapi_requests_total" and sample.labels["route"] == path:
                counts[int(sample.labels["status"])] += int(sample.value)
    return counts


def count_fast_path(scrapes: Sequence[str], path: str) -> int | None:
    """Count the answers of the fast path to a path; return None if no scrape has the metric."""
    values = [
        int(sample.value)
        for scrape in scrapes
        for family in text_string_to_metric_families(scrape)
        for sample in family.samples
        if sample.name == "busyapi_fast_path_requests_total" and sample.labels["route"] == path
    ]
    return sum(values) if values else None
