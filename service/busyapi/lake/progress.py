"""How far the table has come, read at each scrape of the metrics.

A turn may wait for a catalog for half an hour. So the archive is listed again at the scrape, and
compared with how far the table had come when the process last read it or committed to it.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from busyapi.archive.paths import FileKind
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveError
from busyapi.lake.positions import Position, Positions
from busyapi.lake.taker import Taker
from busyapi.telemetry.lake_metrics import LakeProgress, PartitionProgress

LISTING_PAUSE_FACTOR = 50.0
"""The pause before the next listing of the archive, in lengths of the last one."""


class TurnRecord:
    """What the turns of a process have done. The loop writes it, and a scrape reads it."""

    def __init__(self) -> None:
        self.usages = 0
        self.failures = 0
        self.problems: Mapping[int, int] = {}
        """The problems of each partition in the last turn that ended."""
        self._succeeded_at = 0.0
        self._succeeded_before: dict[int, float] = {}
        """Of the partitions with a problem: when the last turn without one ended."""

    def record_turn(self, problems: Iterable[tuple[int, str]]) -> None:
        """Record the end of a turn and the problems that it found."""
        self.problems = Counter(number for number, _ in problems)
        self._succeeded_before = {n: self.succeeded_at(n) for n in self.problems}
        self._succeeded_at = time.time()

    def succeeded_at(self, partition: int) -> float:
        """Return when the last turn without a problem of a partition ended; 0 if none did."""
        return self._succeeded_before.get(partition, self._succeeded_at)


class _Waiting(NamedTuple):
    """The finished segments that the table lacks."""

    since: float | None
    """When the oldest one was finished; None if there is none."""
    usages: int


class ProgressReader:
    """Compares the archive with the table."""

    def __init__(self, root: Path, only: int | None, taker: Taker, turns: TurnRecord) -> None:
        self._root = root
        self._only = only
        self._taker = taker
        self._turns = turns
        self._waiting: dict[int, _Waiting] = {} if only is None else {only: _Waiting(None, 0)}
        self._compared: Positions | None = None
        """The positions that `_waiting` follows from."""
        self._next_listing = 0.0

    def read(self) -> LakeProgress:
        """Return the progress of each partition."""
        positions = self._taker.positions
        if positions is not self._compared or time.monotonic() >= self._next_listing:
            self._list_archive(positions)
        partitions = [self._describe(number, positions) for number in sorted(self._waiting)]
        return LakeProgress(self._turns.usages, self._turns.failures, partitions)

    def _list_archive(self, positions: Positions | None) -> None:
        """Find what waits. Of a partition that cannot be read, the last finding stays."""
        started = time.monotonic()
        try:
            for status in find_partitions(self._root, self._only):
                self._waiting.setdefault(status.number, _Waiting(None, 0))
                if status.partition:
                    self._waiting[status.number] = _find_waiting(
                        status.partition, (positions or {}).get(status.number)
                    )
        except (ArchiveError, OSError):
            pass  # each turn reports it
        self._compared = positions
        ended = time.monotonic()
        self._next_listing = ended + LISTING_PAUSE_FACTOR * (ended - started)

    def _describe(self, number: int, positions: Positions | None) -> PartitionProgress:
        waiting = self._waiting[number]
        lag = max(0.0, time.time() - waiting.since) if waiting.since else 0.0
        position = (positions or {}).get(number)
        missing = sum(last - first + 1 for first, last in position.missing) if position else 0
        is_known = positions is not None
        return PartitionProgress(
            number,
            lag if is_known else None,
            waiting.usages if is_known else None,
            missing if is_known else None,
            self._turns.problems.get(number, 0),
            self._turns.succeeded_at(number),
        )


def _find_waiting(partition: ArchivePartition, position: Position | None) -> _Waiting:
    own = partition.identity
    is_own = position is not None and position.archive_id in {own.archive_id, own.replaces}
    seq = position.seq if position and is_own else 0
    waiting = [
        file
        for file in partition.list_files().files
        if file.kind is FileKind.SEGMENT and file.last > seq
    ]
    usages = sum(file.last - max(file.first - 1, seq) for file in waiting)
    for file in waiting:
        try:
            # A finished segment does not change any more.
            return _Waiting((partition.folder / file.path).stat().st_mtime, usages)
        except FileNotFoundError:
            continue  # retention was faster
    return _Waiting(None, 0)
