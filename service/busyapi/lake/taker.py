"""One turn: takes what is finished into the table, in commits of bounded size."""

import time
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import structlog

from busyapi.archive.ranges import SeqRange
from busyapi.archive_cli.columns import make_schema
from busyapi.archive_cli.export import make_batches
from busyapi.errors import ArchiveDamaged
from busyapi.failpoints import failpoint
from busyapi.ids import Seq
from busyapi.lake.data_files import sort_rows, split_days, write_file
from busyapi.lake.positions import Positions, read_positions
from busyapi.lake.schema import to_file_schema
from busyapi.lake.source import Pending, Run, find_pending
from busyapi.lake.table import LakeTable

log = structlog.get_logger()

RUN_BYTES = 80 << 20
"""Bytes of lines in one commit: about 500,000 usages. With 50 million the process needs 400 MiB,
and with two fifths more it needed up to 522."""


class Taken(NamedTuple):
    """What one commit took."""

    usages: int
    files: int
    left: int
    """Finished seqs that the table still lacks."""


class Taker:
    """Takes usages of the partitions in a folder, or of one of them."""

    def __init__(
        self, lake: LakeTable, root: Path, only: int | None, run_bytes: int = RUN_BYTES
    ) -> None:
        self._lake = lake
        self._root = root
        self._only = only
        self._run_bytes = run_bytes
        self.positions: Positions | None = None
        """How far the table had come when it was last read, or committed to."""
        self.problems: set[tuple[int, str]] = set()
        """The problems of this turn, each of which was logged."""

    def begin_turn(self) -> None:
        """Forget the problems of the last turn."""
        self.problems.clear()

    def take(self) -> Taken | None:
        """Take the next usages and commit them; return None if nothing is left to take.

        If the process dies before the commit, the next one begins at the same positions. The files
        that this one wrote are in no snapshot, and a sweep deletes them.
        """
        before = self.positions = read_positions(self._lake.load())
        pending = find_pending(self._root, self._only, before, self._report)
        run = Run(self._run_bytes, self._report)
        written_at = time.time()
        batches = [batch for part in pending for batch in self._read(run, part)]
        after = {
            number: position
            for number, position in run.reached.items()
            if position.seq > (before[number].seq if number in before else 0)
        }
        if not after:
            return None
        left = sum(
            part.last - after[number].seq if number in after else part.seq_count
            for part in pending
            for number in [part.partition.identity.partition]
        )
        rows = to_file_schema(batches)
        batches.clear()
        table = self._lake.load()
        files = [write_file(table, day, [sort_rows(part)]) for day, part in split_days(rows)]
        failpoint("lake-files-written")
        if not self._lake.append(files, before, after, written_at):
            return Taken(0, 0, left)  # another process took some of them; the next run sees how far
        self.positions = {**before, **after}
        self._log_missing(pending, before, after)
        return Taken(rows.num_rows, len(files), left)

    def _read(self, run: Run, part: Pending) -> list[pa.RecordBatch]:
        """Return the next usages of a partition, or report that one of them is unreadable."""
        try:
            return list(make_batches(run.read_lines(part), make_schema()))
        except ArchiveDamaged as error:
            number = part.partition.identity.partition
            position = run.reached[number]
            ids = part.partition.describe_ids(SeqRange(Seq(part.position.seq + 1), position.seq))
            run.undo(part)
            self._report(number, f"{ids}: {error}")
            return []

    def _log_missing(self, pending: list[Pending], before: Positions, after: Positions) -> None:
        for part in pending:
            number = part.partition.identity.partition
            known = before[number].missing if number in before else ()
            for hole in after[number].missing[len(known) :] if number in after else ():
                ids = part.partition.describe_ids(hole)
                log.error("lake_usages_missing", partition=number, ids=ids)

    def _report(self, number: int, problem: str) -> None:
        if (number, problem) not in self.problems:
            self.problems.add((number, problem))
            log.error("lake_problem", partition=number, detail=problem)
