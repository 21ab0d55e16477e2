"""`busyapi archive …`: what a person does with the files."""

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from busyapi.archive_cli import restore
from busyapi.archive_cli.accept_loss import accept_loss
from busyapi.archive_cli.export import export_parquet
from busyapi.archive_cli.ls import render_table
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.progress import Progress
from busyapi.archive_cli.query import Query, find_line, select_lines
from busyapi.archive_cli.snapshot import ArchiveNotFound
from busyapi.archive_cli.verify import PartitionReport, estimate_bytes, verify_archive
from busyapi.errors import ArchiveError
from busyapi.ids import MAX_ID, Seq, UsageId

Handler = Callable[[argparse.Namespace], int]

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def add_commands(commands: Any, archive_dir: Path) -> None:
    """Add `archive` and what it can do; `archive_dir` is where --dir points by default.

    Each sets `run`, which takes the options and the settings and returns an exit code: 0 fine,
    1 problems found or failed, 2 asked for wrongly or no archive there.
    """
    archive = commands.add_parser(
        "archive",
        help="list, read, prove and export the archive",
        description="Look into the archive. All but accept-loss and restored only read, while"
        " flushers go on.",
    )
    of = archive.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, handler: Handler, examples: str) -> argparse.ArgumentParser:
        about = inspect.cleandoc(handler.__doc__ or "")
        parser: argparse.ArgumentParser = of.add_parser(
            name,
            help=about.splitlines()[0].rstrip(".").lower(),
            description=about,
            epilog="examples:\n" + examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument(
            "--dir",
            type=Path,
            default=archive_dir,
            metavar="PATH",
            help="the folder that holds p00 (default: BUSYAPI_ARCHIVE_DIR, now %(default)s)",
        )
        parser.set_defaults(run=_handle_errors(handler))
        return parser

    _add_partition_option(add("ls", _ls, "  busyapi archive ls\n"))
    cat = add("cat", _cat, _CAT_EXAMPLES)
    cat.add_argument("--id", type=_parse_id, metavar="ID", help="the one usage with this id")
    _add_query_options(cat)
    _add_partition_option(add("verify", _verify, _VERIFY_EXAMPLES))
    exporting = add("export", _export, _EXPORT_EXAMPLES)
    exporting.add_argument("file", type=Path, metavar="FILE", help="replaced if it exists")
    _add_query_options(exporting)
    accept = add("accept-loss", _accept_loss, _ACCEPT_EXAMPLES)
    accept.add_argument("--partition", type=int, required=True, metavar="N", help="from 0")
    accept.add_argument(
        "--through", type=int, required=True, metavar="SEQ", help="the last seq to give up"
    )
    accept.add_argument(
        "--replaces", default="", metavar="ARCHIVE", help="this archive stands in for that one"
    )
    accept.add_argument("--reason", required=True, metavar="TEXT", help="kept in the record")
    accept.add_argument("--yes", action="store_true", help="do not ask")
    restore.add_command(add, _parse_id)


_CAT_EXAMPLES = """\
  busyapi archive cat --id 22954
  busyapi archive cat --from 2026-11-23 --to 2026-11-24 > day.ndjson
  busyapi archive cat --patient 100 | head
"""
_VERIFY_EXAMPLES = """\
  busyapi archive verify && echo whole
  busyapi archive verify --partition 1
"""
_EXPORT_EXAMPLES = """\
  busyapi archive export usages.parquet
  busyapi archive export --from 2026-11-23T00:00:00Z --to 2026-11-24T00:00:00Z day.parquet
"""
_ACCEPT_EXAMPLES = """\
  busyapi archive accept-loss --partition 0 --through 22954 --reason 'volume lost, ticket 123'
"""


def _add_partition_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--partition",
        dest="only",
        type=int,
        metavar="N",
        help="this one alone, from 0: for a volume that holds one (default: all there should be)",
    )


def _add_query_options(parser: argparse.ArgumentParser) -> None:
    _add_partition_option(parser)
    parser.add_argument(
        "--from",
        dest="since",
        type=_parse_time,
        metavar="TIME",
        help="received then or later (RFC 3339)",
    )
    parser.add_argument(
        "--to", dest="until", type=_parse_time, metavar="TIME", help="received before then"
    )
    parser.add_argument("--patient", metavar="ID", help="of this patientId")


def _ls(options: argparse.Namespace) -> int:
    """List the archive's files, with the ids in them.

    Columns: kind, ids, how many, when the first and the last were received, file.
    """
    for place in find_partitions(options.dir, options.only):
        if place.error:
            sys.stdout.write(f"{place.problem}: {place.error}\n")
        for row in render_table(place.partition) if place.partition else ():
            sys.stdout.write(row + "\n")
    return EXIT_OK


def _cat(options: argparse.Namespace) -> int:
    """Print archived usages as NDJSON.

    In the order of their ids, each once, one partition after the other. What cannot be read or is
    missing is named on stderr and passed over; the exit code is then 1.
    """
    if options.id is not None:
        return _cat_id(options)
    troubles: list[str] = []
    for lines in _select_lines(options, "reading", troubles):
        if lines:
            sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
    sys.stdout.buffer.flush()
    return EXIT_FAILED if troubles else EXIT_OK


def _cat_id(options: argparse.Namespace) -> int:
    line = find_line(find_partitions(options.dir, options.only), options.id)
    if line is None:
        _print_error(f"no usage with id {options.id} is archived")
        return EXIT_FAILED
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
    return EXIT_OK


def _verify(options: argparse.Namespace) -> int:
    """Prove that the archive is whole.

    Every usage from the first one kept to the last one archived must be in exactly one file, each
    checksum must hold, and each line must be what FORMAT.md says; and every partition must be
    there, unless one is named. Exit code 0 if so, 1 if not, 2 if there is no archive.
    """
    progress = Progress("verifying", estimate_bytes(options.dir))
    found = 0
    rows: list[str] = []
    for report in verify_archive(options.dir, progress.advance, only=options.only):
        progress.clear()
        found += len(report.problems)
        rows += _render_report(report)
    rows.append("no problem found" if not found else f"{found} problems found")
    # At once: a reader of the first line alone must not make the exit code a matter of chance.
    sys.stdout.write("\n".join(rows) + "\n")
    sys.stdout.flush()
    return EXIT_FAILED if found else EXIT_OK


def _export(options: argparse.Namespace) -> int:
    """Write archived usages into a Parquet file.

    Columns: id, received_at, patient_id, medication, timestamp, and usage, which is the whole
    usage as JSON. The file appears when it is whole. Needs pyarrow: in a clone, run
    `.venv/bin/pip install -e '.[parquet]'`.
    """
    troubles: list[str] = []
    rows = export_parquet(_select_lines(options, "exporting", troubles), options.file)
    sys.stdout.write(f"{rows} usages in {options.file}\n")
    return EXIT_FAILED if troubles else EXIT_OK


def _accept_loss(options: argparse.Namespace) -> int:
    """Record usages that are missing as lost, so that the flusher goes on.

    Only for a flusher that has stopped because usages may be gone, when they will not come back:
    it says which partition and which seq. What the archive does hold stays.
    """
    through = Seq(options.through)
    accept_loss(
        options.dir,
        options.partition,
        through,
        options.reason,
        replaces=options.replaces,
        confirmed=options.yes,
    )
    return EXIT_OK


def _select_lines(
    options: argparse.Namespace, verb: str, troubles: list[str]
) -> Iterator[list[bytes]]:
    selection = Query(options.since or 0, options.until, options.patient)
    progress = Progress(verb, estimate_bytes(options.dir))

    def complain(what: str) -> None:
        progress.clear()
        troubles.append(what)
        _print_error(what)

    for place in find_partitions(options.dir, options.only):
        if place.error:
            complain(place.error)
        if place.partition:
            yield from select_lines(place.partition, selection, complain, progress.advance)
    progress.clear()


def _render_report(report: PartitionReport) -> Iterator[str]:
    yield (
        f"partition {report.number}: {report.usages} usages up to seq {report.cursor};"
        f" {report.skipped} seqs in {report.gaps} gap records; {report.quarantined} in quarantine"
    )
    for problem in report.problems:
        yield f"  {problem.kind:8}  {problem.where + ' ' if problem.where else ''}{problem.what}"
    for note in report.notes:
        yield f"  note      {note}"


def _handle_errors(handler: Handler) -> Callable[[argparse.Namespace, object], int]:
    """Turn what a person can run into into a sentence and an exit code."""

    def run(options: argparse.Namespace, _settings: object) -> int:
        try:
            return handler(options)
        except BrokenPipeError:
            # Who reads has seen enough. Python must not find the pipe again when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            # But a proof, or a question, that nobody heard to its end is none.
            if handler in (_ls, _cat):
                return EXIT_OK
            _print_error("nobody read this to its end: it exits with 1")
            return EXIT_FAILED
        except ArchiveNotFound as error:
            _print_error(str(error))
            return EXIT_USAGE
        except ArchiveError as error:
            _print_error(str(error))
        except OSError as error:
            _print_error(f"{error.filename or 'archive'}: {error.strerror}")
        return EXIT_FAILED

    return run


def _print_error(what: str) -> None:
    sys.stderr.write(f"busyapi: {what}\n")


def _parse_time(text: str) -> int:
    """Read RFC 3339, or a date for its midnight in UTC, as milliseconds since 1970."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time like 2026-11-23T19:12:00Z") from None
    if moment.tzinfo is None:
        if len(text) != len("2026-11-23"):
            raise argparse.ArgumentTypeError(f"{text!r} has no time zone: end it with Z")
        moment = moment.replace(tzinfo=UTC)
    return max(0, round(moment.timestamp() * 1000))


def _parse_id(text: str) -> UsageId:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_ID:
        raise argparse.ArgumentTypeError(f"{text!r} is no id: they are whole numbers from 1")
    return UsageId(int(text))
