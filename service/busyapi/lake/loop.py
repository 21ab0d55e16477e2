"""The main loop: turns, each of which takes what is finished and then tidies the table."""

import threading
import time
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import structlog

from busyapi.errors import describe_for_log
from busyapi.lake.compaction import compact, find_settled_days
from busyapi.lake.maintenance import expire_snapshots, sweep
from busyapi.lake.progress import TurnRecord
from busyapi.lake.table import LakeTable
from busyapi.lake.taker import Taker

log = structlog.get_logger()

SWEEP_INTERVAL_SECONDS = 3600.0
MAX_RETRY_SECONDS = 600.0
"""A turn that fails at its commit leaves files for a day, so turns that fail become rare."""
MAX_STEP_SECONDS = 1800.0
"""A commit, a merge or a sweep takes seconds, and minutes on a slow store."""


class LoopConfig(NamedTuple):
    """How often turns are, and what they do."""

    interval: float
    """Seconds between two turns."""
    snapshot_age: timedelta
    """How long a snapshot is kept after it was replaced."""
    tidies: bool
    """Whether this process compacts, expires and sweeps. One of several is enough."""


class LakeLoop:
    """Runs turns until it is stopped, in a thread of its own."""

    def __init__(self, lake: LakeTable, taker: Taker, config: LoopConfig) -> None:
        self.stop = threading.Event()
        """Ends the loop after the commit that is under way."""
        self.turns = TurnRecord()
        self._lake = lake
        self._taker = taker
        self._config = config
        self._next_sweep = 0.0
        self._failures = 0
        """Turns that failed since the last one that did not."""
        self._progress_at = time.monotonic()

    def run_forever(self) -> None:
        """Run a turn at each interval."""
        while not self.stop.is_set():
            self.run_safely()
            self.stop.wait(self.wait_seconds())

    def wait_seconds(self) -> float:
        """Return the time until the next turn: twice as long after each turn that failed."""
        interval = self._config.interval
        return max(interval, min(interval * 2.0 ** min(self._failures, 20), MAX_RETRY_SECONDS))

    def is_stuck(self) -> bool:
        """Return whether a step takes so long that its connection must be lost.

        pyiceberg waits without a limit for the answer of a REST catalog.
        """
        limit = MAX_STEP_SECONDS + self.wait_seconds()
        return time.monotonic() - self._progress_at > limit

    def run_safely(self) -> bool:
        """Run a turn, and log if it fails; return whether it had no problem.

        Whatever the catalog or the store raises: the next turn begins at the table's positions.
        """
        try:
            succeeded = self.run_turn()
        except Exception as error:  # noqa: BLE001 - see above
            self._failures += 1
            self.turns.failures += 1
            log.error("lake_failed", error=type(error).__name__, detail=describe_for_log(error))
            return False
        self._failures = 0
        return succeeded

    def run_turn(self) -> bool:
        """Take all that is finished, then tidy; return whether there was no problem."""
        self._taker.begin_turn()
        try:
            self._take_all()
        finally:
            # Also after a failure: each one may have left files that no snapshot has.
            if self._config.tidies and not self._should_stop():
                self._tidy()
        self.turns.record_turn(self._taker.problems)
        return not self._taker.problems and not self.stop.is_set()

    def _take_all(self) -> None:
        while not self._should_stop():
            started = time.monotonic()
            taken = self._taker.take()
            if taken is None:
                break
            self.turns.usages += taken.usages
            seconds = round(time.monotonic() - started, 3)
            log.info(
                "lake_committed",
                usages=taken.usages,
                files=taken.files,
                seconds=seconds,
                left=taken.left,
            )
            self._compact(date.min)

    def _should_stop(self) -> bool:
        """Return whether the loop was stopped; asked before each step."""
        self._progress_at = time.monotonic()
        return self.stop.is_set()

    def _tidy(self) -> None:
        # Only now, because each partition may have had usages of the same days to take.
        self._compact(find_settled_days(datetime.now(UTC)))
        expire_snapshots(self._lake, datetime.now(UTC) - self._config.snapshot_age)
        if time.monotonic() >= self._next_sweep:
            deleted = sweep(self._lake)
            self._next_sweep = time.monotonic() + SWEEP_INTERVAL_SECONDS
            log.info("lake_swept", files=deleted)

    def _compact(self, settled_before: date) -> None:
        if self._config.tidies:
            replaced = compact(self._lake, settled_before, self._should_stop)
            if replaced:
                log.info("lake_compacted", files=replaced)
