"""`busyapi audit …`: verify the audit trail, and print its records."""

import argparse
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from busyapi.archive_cli.commands import (
    EXIT_FAILED,
    EXIT_OK,
    Handler,
    handle_errors,
    parse_id,
)
from busyapi.archive_cli.progress import count_problems
from busyapi.archive_cli.selection import add_partition_option, parse_time, print_error
from busyapi.archive_cli.snapshot import ArchiveNotFound
from busyapi.audit.files import find_trails, list_files
from busyapi.audit.patients import digest_patient
from busyapi.audit.record import ACTIONS, TRAIL_ACTIONS, format_time
from busyapi.audit.scan import scan_lines
from busyapi.audit.verify import TrailProblem, TrailReport, verify_trail
from busyapi.audit_cli.record_filter import RecordFilter
from busyapi.output import write_output

_VERIFY_EXAMPLES = """\
  busyapi audit verify && echo intact
  busyapi audit verify --expect 9f2c…            # a hash from the log event audit_head
  busyapi audit verify --json | jq '.problems | length'
"""
_CAT_EXAMPLES = """\
  busyapi audit cat --from 2026-11-28 --to 2026-11-29
  busyapi audit cat --usage 22954                # who read this usage
  busyapi audit cat --name clinic-a --action refused
"""


def add_commands(commands: Any, archive_dir: Path) -> None:
    """Add `audit` and its commands; `archive_dir` is the default of --dir."""
    audit = commands.add_parser(
        "audit",
        help="verify and read the audit trail",
        description="Work on the audit trail, also while flushers run. Each partition has a trail,"
        " in its folder `audit` (`p00/audit`). Nothing is changed.",
    )
    subcommands = audit.add_subparsers(required=True, metavar="COMMAND")

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
        add_partition_option(parser)
        parser.set_defaults(run=handle_errors(handler, may_stop_early=handler is _cat))
        return parser

    verify = add("verify", _verify, _VERIFY_EXAMPLES)
    verify.add_argument(
        "--expect",
        type=_parse_hash,
        action="append",
        default=[],
        metavar="HASH",
        help="a hash that was kept elsewhere: a record must have it; may be repeated",
    )
    verify.add_argument(
        "--json", action="store_true", help="print one JSON object for each partition"
    )
    cat = add("cat", _cat, _CAT_EXAMPLES)
    cat.add_argument(
        "--from", dest="since", type=parse_time, metavar="TIME", help="at this time or later"
    )
    cat.add_argument("--to", dest="until", type=parse_time, metavar="TIME", help="before this time")
    cat.add_argument("--name", metavar="NAME", help="of the credential with this name")
    cat.add_argument("--action", choices=sorted(ACTIONS | TRAIL_ACTIONS), help="of this kind")
    cat.add_argument("--usage", type=parse_id, metavar="ID", help="about the usage with this id")
    cat.add_argument(
        "--patient", metavar="ID", help="commands that selected the usages of this patientId"
    )


def _verify(options: argparse.Namespace) -> int:
    """Verify that the audit trail is complete and unchanged.

    Each record must match its hash, which includes the record before it; files may be missing only
    if the trail records that their retention ended; the head must name the last record. A
    process that can write to the volume can replace the whole trail. To detect this, store hashes
    outside the volume and pass them with --expect. Exit code 0: all of this holds, 1: not, 2: no
    trail.
    """
    reports = [
        verify_trail(folder, number, options.expect)
        for number, folder in _select_trails(options).items()
    ]
    for digest in sorted(set.intersection(*(report.unseen for report in reports))):
        detail = f"no record has the expected hash {digest}"
        reports[-1].problems.append(TrailProblem("missing", "", detail))
    problems = sum(len(report.problems) for report in reports)
    rows: list[str] = []
    for report in reports:
        rows += [_render_json(report)] if options.json else _render_report(report)
    if not options.json:
        rows.append(count_problems(problems))
    write_output("\n".join(rows) + "\n")
    return EXIT_FAILED if problems else EXIT_OK


def _cat(options: argparse.Namespace) -> int:
    """Print the records of the audit trail as NDJSON.

    Records are printed in their order, one partition after the other. What cannot be read is
    reported on stderr and skipped; the exit code is then 1. `verify` says whether a record is
    genuine: this command prints changed records too.
    """
    has_errors = False
    for number, folder in _select_trails(options).items():
        digest = None if options.patient is None else digest_patient(folder, options.patient)
        record_filter = RecordFilter(
            since=None if options.since is None else format_time(options.since / 1000),
            until=None if options.until is None else format_time(options.until / 1000),
            name=options.name,
            action=options.action,
            usage=options.usage,
            patient=digest,
        )
        for file in list_files(folder, number):
            for line in scan_lines(file.path):
                if line.record is None and line.is_complete:
                    has_errors = True
                    print_error(f"{file.path}: the line at byte {line.start} is not a record")
                elif line.record and record_filter.matches(line.record):
                    write_output(line.record.line)
    return EXIT_FAILED if has_errors else EXIT_OK


def _select_trails(options: argparse.Namespace) -> dict[int, Path]:
    trails = find_trails(options.dir)
    if options.only is not None:
        trails = {number: path for number, path in trails.items() if number == options.only}
    if not trails:
        which = "" if options.only is None else f" of partition {options.only}"
        raise ArchiveNotFound(f"{options.dir} holds no audit trail{which}")
    return trails


def _render_report(report: TrailReport) -> Iterator[str]:
    span = f"{report.first} to {report.last}" if report.records else "none"
    head = f", head {report.head}" if report.records else ""
    yield f"partition {report.partition}: {report.records} records ({span}){head}"
    for problem in report.problems:
        yield f"  {problem.kind:9}  {problem.where + ': ' if problem.where else ''}{problem.detail}"
    for note in report.notes:
        yield f"  note       {note}"


def _render_json(report: TrailReport) -> str:
    members = {
        "partition": report.partition,
        "records": report.records,
        "first": report.first,
        "last": report.last,
        "head": report.head,
        "problems": [
            {"kind": problem.kind, "file": problem.where, "detail": problem.detail}
            for problem in report.problems
        ],
        "notes": report.notes,
    }
    return json.dumps(members)


def _parse_hash(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a hash of 64 hexadecimal digits")
    return text
