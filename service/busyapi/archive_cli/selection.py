"""The options that select usages by partition, time and patient, and the usages they select."""

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.progress import Progress
from busyapi.archive_cli.query import BlockTimes, Query, select_lines
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.archive_cli.verify import estimate_bytes
from busyapi.errors import ArchiveError
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
    parser.add_argument("--patient", metavar="ID", help="with this patientId")


def require_no_query(options: argparse.Namespace) -> None:
    """Check that none of the options is set.

    Raises:
        WrongOptions: one is.
    """
    names = {"only": "--partition", "since": "--from", "until": "--to", "patient": "--patient"}
    used = [name for dest, name in names.items() if getattr(options, dest) is not None]
    if used:
        raise WrongOptions(
            f"--id selects one usage by itself: leave out --id, or {' and '.join(used)}"
        )


def print_error(message: str) -> None:
    """Print a line on stderr."""
    sys.stderr.write(f"busyapi: {message}\n")


class Selection:
    """The usages that the options select, and what was found while they were read."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Check the options.

        Raises:
            WrongOptions: no time is both from `--from` on and before `--to`.
        """
        if None not in {options.since, options.until} and options.since >= options.until:
            raise WrongOptions(
                f"--from {format_received_at(options.since)} must be earlier than --to"
                f" {format_received_at(options.until)}: nothing is received between them"
            )
        self._root, self._only = options.dir, options.only
        self._query = Query(options.since or 0, options.until, options.patient)
        self._times = BlockTimes()
        self._expired: list[str] = []
        self.has_errors = False
        """Whether something could not be read; it was printed and skipped."""

    def read_lines(self, verb: str, *, stdout_has_data: bool = False) -> Iterator[list[bytes]]:
        """Yield the lines; at the end, print why if there was none.

        `verb` and `stdout_has_data` are those of `Progress`.
        """
        count = 0
        with Progress(
            verb, estimate_bytes(self._root), stdout_has_data=stdout_has_data
        ) as progress:

            def report(error: str) -> None:
                progress.clear()
                self.has_errors = True
                print_error(error)

            for status in find_partitions(self._root, self._only):
                if status.error:
                    report(status.error)
                if status.partition:
                    self._note_retention(status.partition)
                    for lines in select_lines(
                        status.partition, self._query, report, progress.advance, self._times
                    ):
                        count += len(lines)
                        yield lines
        if not count:
            print_error(f"nothing matched: {self._explain()}")

    def _note_retention(self, partition: ArchivePartition) -> None:
        if partition.identity.kept_from > 1:
            self._expired.append(str(partition.id_of(partition.identity.kept_from)))

    def _explain(self) -> str:
        """Return why no usage matched. It quotes no patient."""
        times = self._times
        if times.latest_ms is None:
            reason = "no usage is archived here"
        elif self._query.patient is None or not times.lines_in_time:
            first, last = map(format_received_at, (times.earliest_ms, times.latest_ms))
            reason = f"the archived usages were received from {first} to {last}"
            if self._query.since_ms > times.latest_ms:
                reason += ", and later ones may not be archived yet"
        else:
            has_times = self._query.since_ms or self._query.until_ms is not None
            where = "of that time" if has_times else "here"
            reason = f"none of the {times.lines_in_time} usages {where} has that patientId"
        if self.has_errors:
            reason += ", except what could not be read"
        if self._expired:
            ids = " and ".join(self._expired)
            reason += f". Usages before id {ids} were deleted when their retention ended"
        return reason


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
