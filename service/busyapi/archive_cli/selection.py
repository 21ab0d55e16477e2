"""The options that select usages by partition, time and patient, and the usages they select."""

import argparse
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from busyapi.archive import high_water
from busyapi.archive.paths import FileKind
from busyapi.archive.ranges import SeqRange
from busyapi.archive_cli.increment import (
    CannotIncrement,
    Increment,
    Position,
    find_end,
    format_position,
    plan_increment,
)
from busyapi.archive_cli.kept_memory import keep_freed_memory
from busyapi.archive_cli.line_filter import Query
from busyapi.archive_cli.ordered_reader import ALL_SEQS, NO_SEQS
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.progress import Progress
from busyapi.archive_cli.query import BlockTimes, select_lines
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveError
from busyapi.ids import Seq
from busyapi.usage_json import format_received_at


class WrongOptions(ArchiveError):
    """These options contradict each other."""


def add_partition_option(parser: argparse.ArgumentParser) -> None:
    """Add `--partition`."""
    parser.add_argument(
        "--partition",
        dest="only",
        type=int,
        metavar="N",
        help="one partition, from 0, for a volume that holds only one (default: all)",
    )


def add_query_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `Selection` reads."""
    add_partition_option(parser)
    parser.add_argument(
        "--from",
        dest="since",
        type=parse_time,
        metavar="TIME",
        help="received at this time or later (RFC 3339)",
    )
    parser.add_argument(
        "--to", dest="until", type=parse_time, metavar="TIME", help="received before this time"
    )
    parser.add_argument(
        "--patient",
        action="append",
        metavar="ID",
        help="with this patientId; give it again for several patients",
    )
    parser.add_argument(
        "--medication", action="append", metavar="NAME", help="with this medication; likewise"
    )
    parser.add_argument(
        "--device-from",
        dest="device_since",
        type=parse_time,
        metavar="TIME",
        help="with a device's time not before this one",
    )
    parser.add_argument(
        "--device-to",
        dest="device_until",
        type=parse_time,
        metavar="TIME",
        help="with a device's time before this one",
    )


_OPTIONS = {
    "only": "--partition",
    "since": "--from",
    "until": "--to",
    "patient": "--patient",
    "medication": "--medication",
    "device_since": "--device-from",
    "device_until": "--device-to",
}


def require_no_query(options: argparse.Namespace) -> None:
    """Check that none of the options is set.

    Raises:
        WrongOptions: one is.
    """
    used = [name for dest, name in _OPTIONS.items() if getattr(options, dest) is not None]
    if used:
        raise WrongOptions(
            f"--id selects one usage by itself: leave out --id, or {' and '.join(used)}"
        )


def print_error(message: str) -> None:
    """Print a line on stderr."""
    sys.stderr.write(f"busyapi: {message}\n")


class SelectedLines(NamedTuple):
    """Lines of one partition, each with its newline."""

    partition: int
    lines: bytes


class Selection:
    """The usages that the options select, and what was found while they were read."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Check the options, and plan the increment if there is one.

        Raises:
            WrongOptions: no time is both from `--from` on and before `--to`.
            ArchiveNotFound: the folder holds no archive.
            CannotIncrement: a partition cannot be read.
        """
        _check_order(options.since, "--from", options.until, "--to")
        _check_order(options.device_since, "--device-from", options.device_until, "--device-to")
        self._root, self._only = options.dir, options.only
        self._query = Query(
            options.since or 0,
            options.until,
            frozenset(options.patient or ()),
            frozenset(options.medication or ()),
            options.device_since,
            options.device_until,
        )
        self._times = BlockTimes()
        self._expired: list[str] = []
        self.has_errors = False
        """Whether something could not be read; it was printed and skipped."""
        self._has_lines = False
        self._ends: dict[int, Seq] | None = None
        after = getattr(options, "after_id", None)
        self.increment = None if after is None else self._plan_increment(after)

    def _plan_increment(self, after: Position) -> Increment:
        statuses = find_partitions(self._root, self._only)
        errors = [status.error for status in statuses if status.error]
        if errors:
            raise CannotIncrement(f"--after-id needs every partition: {'; '.join(errors)}")
        increment = plan_increment(
            [status.partition for status in statuses if status.partition], after
        )
        for ids in increment.missing:
            self.has_errors = True
            print_error(f"{ids}: in no file. The increment ends before them")
        return increment

    def fix_end(self) -> None:
        """Select what is archived now, however often and however late it is read."""
        partitions = [status.partition for status in find_partitions(self._root, self._only)]
        self._ends = {
            partition.identity.partition: _find_last(partition)
            for partition in partitions
            if partition
        }

    def read_lines(self, verb: str, *, stdout_has_data: bool = False) -> Iterator[SelectedLines]:
        """Yield the lines; at the end, print why if there was none.

        `verb` and `stdout_has_data` are those of `Progress`.
        """
        keep_freed_memory()
        with Progress(verb, self._estimate_bytes(), stdout_has_data=stdout_has_data) as progress:

            def report(error: str) -> None:
                progress.clear()
                self.has_errors = True
                print_error(error)

            for status in find_partitions(self._root, self._only):
                if status.error:
                    report(status.error)
                if status.partition:
                    self._note_retention(status.partition)
                    for lines in self._select_lines(status.partition, report, progress.advance):
                        self._has_lines = True
                        yield SelectedLines(status.number, lines)
        if not self._has_lines:
            print_error(f"0 usages matched: {self._explain()}")

    def _select_lines(
        self,
        partition: ArchivePartition,
        report: Callable[[str], None],
        advance: Callable[[int], None],
    ) -> Iterator[bytes]:
        seqs = self._select_seqs(partition)
        kept_from = partition.identity.kept_from
        if seqs.first < kept_from and self.increment and self.increment.after:
            deleted = partition.describe_ids(SeqRange(seqs.first, Seq(kept_from - 1)))
            print_error(f"retention has deleted {deleted} before they were exported")
        if seqs.last >= seqs.first:
            yield from select_lines(partition, self._query, report, advance, self._times, seqs=seqs)

    def _estimate_bytes(self) -> int:
        """Return about how many bytes will be read."""
        total = 0
        for status in find_partitions(self._root, self._only):
            if status.partition:
                seqs = self._select_seqs(status.partition)
                total += status.partition.measure_segments(seqs)
        return total

    def _select_seqs(self, partition: ArchivePartition) -> SeqRange:
        number = partition.identity.partition
        # A partition that has begun since what is read was chosen is left to the next reading.
        if self.increment:
            return self.increment.seqs.get(number, NO_SEQS)
        if self._ends is not None:
            return SeqRange(Seq(1), self._ends.get(number, Seq(0)))
        return ALL_SEQS

    def _note_retention(self, partition: ArchivePartition) -> None:
        if partition.identity.kept_from > 1:
            self._expired.append(str(partition.id_of(partition.identity.kept_from)))

    def _explain(self) -> str:
        """Return why no usage matched. It quotes no patient."""
        times = self._times
        increment = self.increment
        if increment and increment.is_empty:
            reason = f"no usage after {format_position(increment.after)} is archived yet"
        elif times.latest_ms is None:
            reason = "no usage is archived here"
        elif not times.lines_in_time:
            first, last = map(format_received_at, (times.earliest_ms, times.latest_ms))
            reason = f"the archived usages were received from {first} to {last}"
            if self._query.since_ms > times.latest_ms:
                reason += ", and later ones may not be archived yet"
        else:
            has_times = self._query.since_ms or self._query.until_ms is not None
            where = "of that time" if has_times else "here"
            reason = f"none of the {times.lines_in_time} usages {where} has {self._describe()}"
        if self.has_errors:
            reason += ", except what could not be read"
        if self._expired:
            ids = " and ".join(self._expired)
            reason += f". Usages before id {ids} were deleted when their retention ended"
        return reason

    def _describe(self) -> str:
        """Return what the query requires of the content. It quotes no value."""
        query = self._query
        has_time = (query.device_since_ms, query.device_until_ms) != (None, None)
        words = [
            "that patientId" if len(query.patients) == 1 else "one of these patientIds",
            "that medication" if len(query.medications) == 1 else "one of these medications",
            "a device's time in that range",
        ]
        used = [bool(query.patients), bool(query.medications), has_time]
        return " and ".join(word for word, is_used in zip(words, used, strict=True) if is_used)


def _find_last(partition: ArchivePartition) -> Seq:
    """Return the last seq that any file holds now, or that is missing now."""
    # Read the mark first: what it covers was on disk before the files are listed.
    reached = high_water.read_mark(partition.folder, partition.identity.archive_id)
    files = partition.list_files().files
    opened = [find_end(partition, file) for file in files if file.kind is FileKind.OPEN]
    return max([reached, *(file.last for file in files), *opened])


def _check_order(since: int | None, first: str, until: int | None, second: str) -> None:
    if since is not None and until is not None and since >= until:
        raise WrongOptions(
            f"{first} {format_received_at(since)} must be earlier than {second}"
            f" {format_received_at(until)}: no time is between them"
        )


def parse_time(text: str) -> int:
    """Return the milliseconds since 1970 of an RFC 3339 time, or of a date's midnight in UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time like 2026-11-23T19:12:00Z"
        ) from None
    if moment.tzinfo is None:
        if len(text) != len("2026-11-23"):
            raise argparse.ArgumentTypeError(f"{text!r} has no time zone: add Z for UTC")
        moment = moment.replace(tzinfo=UTC)
    return max(0, round(moment.timestamp() * 1000))
