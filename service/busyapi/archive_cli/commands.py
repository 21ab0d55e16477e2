"""`busyapi archive …`: the commands with which an operator works on the files."""

import argparse
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from busyapi.archive_cli import restore, upgrade
from busyapi.archive_cli.accept_loss import accept_loss
from busyapi.archive_cli.export_command import run_export
from busyapi.archive_cli.export_options import add_export_options
from busyapi.archive_cli.export_record import record_before, record_export
from busyapi.archive_cli.ls import list_files, render_table
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.progress import Progress, count_problems
from busyapi.archive_cli.query import find_line
from busyapi.archive_cli.selection import (
    Selection,
    WrongOptions,
    add_partition_option,
    add_query_options,
    print_error,
    require_no_query,
)
from busyapi.archive_cli.snapshot import ArchiveNotFound
from busyapi.archive_cli.sql_command import run_sql
from busyapi.archive_cli.sql_options import add_sql_options
from busyapi.archive_cli.verify import PartitionReport, estimate_bytes, verify_archive
from busyapi.errors import ArchiveError
from busyapi.ids import MAX_ID, Seq, UsageId
from busyapi.output import OutputFailed, discard_output, flush_output, write_output

Handler = Callable[[argparse.Namespace], int]

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def add_commands(
    commands: Any,
    archive_dir: Path,
    audit_mode: str = "auto",
    accept_primary: Handler | None = None,
) -> None:
    """Add `archive` and its commands; `archive_dir` is the default of --dir.

    `audit_mode` is BUSYAPI_AUDIT: whether `cat`, `export` and `sql` are recorded.
    `accept_primary` runs that command, which needs Redis.

    Each command sets `run`, which takes the options and the settings and returns an exit code:
    0 for success, 1 for a failure or problems found, 2 for wrong usage or no archive.
    """
    archive = commands.add_parser(
        "archive",
        help="list, read, verify and export the archive",
        description="Work on the archive, also while flushers run. accept-loss,"
        " confirm-restore and downgrade change it, and need a flusher that is halted or stopped."
        " upgrade changes it also while flushers run. accept-primary changes what a running flusher"
        " does. cat, export and sql record themselves in the audit trail"
        " (BUSYAPI_AUDIT). All other commands only read.",
    )
    subcommands = archive.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, handler: Handler, examples: str) -> argparse.ArgumentParser:
        about = inspect.cleandoc(handler.__doc__ or "")
        parser: argparse.ArgumentParser = subcommands.add_parser(
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
        run = handle_errors(handler, may_stop_early=handler in (_ls, _cat, run_sql))
        parser.set_defaults(run=run, audit_mode=audit_mode)
        return parser

    listing = add("ls", _ls, "  busyapi archive ls\n  busyapi archive ls --json\n")
    add_partition_option(listing)
    listing.add_argument("--json", action="store_true", help="print one JSON object for each file")
    cat = add("cat", _cat, _CAT_EXAMPLES)
    cat.add_argument(
        "--id", type=parse_id, metavar="ID", help="the one usage with this id; no other option"
    )
    add_query_options(cat)
    verify = add("verify", _verify, _VERIFY_EXAMPLES)
    add_partition_option(verify)
    verify.add_argument(
        "--json", action="store_true", help="print one JSON object for each partition"
    )
    add_export_options(add("export", run_export, _EXPORT_EXAMPLES))
    add_sql_options(add("sql", run_sql, _SQL_EXAMPLES))
    accept = add("accept-loss", _accept_loss, _ACCEPT_EXAMPLES)
    accept.add_argument("--partition", type=int, required=True, metavar="N", help="from 0")
    accept.add_argument(
        "--through", type=int, required=True, metavar="SEQ", help="the last seq to record as lost"
    )
    accept.add_argument(
        "--replaces",
        default="",
        metavar="ARCHIVE",
        help="the id of an archive that this one replaces",
    )
    accept.add_argument("--reason", required=True, metavar="TEXT", help="recorded in the archive")
    accept.add_argument("--yes", action="store_true", help="record without asking")
    restore.add_command(add, parse_id)
    upgrade.add_commands(add)
    if accept_primary:
        accepting = add("accept-primary", accept_primary, "  busyapi archive accept-primary\n")
        accepting.add_argument("--partition", type=int, default=0, metavar="N", help="from 0")
        accepting.add_argument("--yes", action="store_true", help="record without asking")


_CAT_EXAMPLES = """\
  busyapi archive cat --id 22954
  busyapi archive cat --from 2026-11-23 --to 2026-11-24 > day.ndjson
  busyapi archive cat --patient 100 --patient 101 --medication Albuterol | head
"""
_VERIFY_EXAMPLES = """\
  busyapi archive verify && echo intact
  busyapi archive verify --partition 1
  busyapi archive verify --json | jq '.problems | length'
"""
_EXPORT_EXAMPLES = """\
  busyapi archive export usages.parquet
  busyapi archive export --from 2026-11-23T00:00:00Z --to 2026-11-24T00:00:00Z day.parquet
  busyapi archive export --after-id 0 first.parquet
  busyapi archive export --partition-by day --flatten /device/battery usages/
  busyapi archive export --format csv - | head
"""
_SQL_EXAMPLES = """\
  busyapi archive sql "select medication, count(*) n from usages group by all order by n desc"
  busyapi archive sql --from 2026-11-23 --format csv "select * from usages limit 100" > some.csv
"""
_ACCEPT_EXAMPLES = """\
  busyapi archive accept-loss --partition 0 --through 22954 --reason 'volume lost, ticket 123'
"""


def _ls(options: argparse.Namespace) -> int:
    """List the archive's files, with the ids in them.

    Columns: kind, ids, number of ids, times of the first and the last receipt, file.
    """
    for status in find_partitions(options.dir, options.only):
        if options.json:
            if status.error:
                print_error(status.error)
            for row in list_files(status.partition) if status.partition else ():
                write_output(json.dumps(row) + "\n")
            continue
        if status.error:
            write_output(f"{status.problem}: {status.error}\n")
        for line in render_table(status.partition) if status.partition else ():
            write_output(line + "\n")
    return EXIT_OK


def _cat(options: argparse.Namespace) -> int:
    """Print archived usages as NDJSON.

    Each usage is printed once, in the order of the ids, one partition after the other. What is
    missing or cannot be read is reported on stderr and skipped; the exit code is then 1.
    """
    if options.id is not None:
        require_no_query(options)
        record_export(options)
        return _cat_id(options)
    selection = Selection(options)
    blocks = selection.read_lines("reading", stdout_has_data=True)
    for _, lines in record_before(options, blocks):
        write_output(lines)
    return EXIT_FAILED if selection.has_errors else EXIT_OK


def _cat_id(options: argparse.Namespace) -> int:
    line = find_line(find_partitions(options.dir, options.only), options.id)
    if line is None:
        print_error(f"no usage with id {options.id} is archived")
        return EXIT_FAILED
    write_output(line + b"\n")
    return EXIT_OK


def _verify(options: argparse.Namespace) -> int:
    """Verify that the archive is complete and intact.

    Every usage from the first one kept to the last one archived must be in exactly one file, each
    checksum must match, each line must have the format of FORMAT.md, and every partition must be
    there, unless --partition names one. Exit code 0: all of this holds, 1: not, 2: no archive, or
    no partition of this number.
    """
    problems = 0
    rows: list[str] = []
    with Progress("verifying", estimate_bytes(options.dir)) as progress:
        for report in verify_archive(options.dir, progress.advance, only=options.only):
            problems += len(report.problems)
            rows += [_render_json(report)] if options.json else _render_report(report)
    if not options.json:
        rows.append(count_problems(problems))
    # One write: the exit code must not depend on how fast a reader of one line closes the pipe.
    write_output("\n".join(rows) + "\n")
    return EXIT_FAILED if problems else EXIT_OK


def _accept_loss(options: argparse.Namespace) -> int:
    """Record missing usages as lost, so that a halted flusher resumes.

    Use it only if a flusher has halted because usages may be lost, and no copy of them exists. The
    flusher's message names the partition and the seq. The usages in the archive are kept.
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


def _render_report(report: PartitionReport) -> Iterator[str]:
    yield (
        f"partition {report.number}: {report.usages} usages up to seq {report.cursor};"
        f" {report.skipped} seqs in {report.gaps} gap records; {report.quarantined} in quarantine"
    )
    for problem in report.problems:
        yield f"  {problem.kind:8}  {problem.where + ' ' if problem.where else ''}{problem.detail}"
    for note in report.notes:
        yield f"  note      {note}"


def _render_json(report: PartitionReport) -> str:
    members = {
        "partition": report.number,
        "cursor": report.cursor,
        "usages": report.usages,
        "gaps": report.gaps,
        "skipped": report.skipped,
        "quarantined": report.quarantined,
        "problems": [
            {"kind": problem.kind, "ids": problem.where, "detail": problem.detail}
            for problem in report.problems
        ],
        "notes": report.notes,
    }
    return json.dumps(members)


def handle_errors(
    handler: Handler, *, may_stop_early: bool
) -> Callable[[argparse.Namespace, object], int]:
    """Return the handler with its errors turned into a sentence on stderr and an exit code.

    The reader of a list may stop early; a result or a question must be read to its end.
    """

    def run(options: argparse.Namespace, _settings: object) -> int:
        try:
            code = handler(options)
            flush_output()
        except BrokenPipeError:
            discard_output()
            if may_stop_early:
                return EXIT_OK
            print_error("the output was cut off, so the result was not fully reported")
            return EXIT_FAILED
        except (ArchiveNotFound, WrongOptions) as error:
            print_error(str(error))
            return EXIT_USAGE
        except ArchiveError as error:
            print_error(str(error))
        except OSError as error:
            print_error(f"{error.filename or options.dir}: {error.strerror}")
            if isinstance(error, OutputFailed):
                discard_output()
        else:
            return code
        return EXIT_FAILED

    return run


def parse_id(text: str) -> UsageId:
    """Parse the id of a usage, as an argument type."""
    if not text.isdecimal() or not 1 <= int(text) <= MAX_ID:
        raise argparse.ArgumentTypeError(f"{text!r} is not an id: an id is a whole number from 1")
    return UsageId(int(text))
