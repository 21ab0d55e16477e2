"""`busyapi archive export`: all checks before any work, and the report at the end."""

import argparse
import sys

from busyapi.archive_cli.export_options import (
    STDOUT,
    check_export_options,
    choose_format,
)
from busyapi.archive_cli.export_record import record_before
from busyapi.archive_cli.export_target import (
    check_file_target,
    check_folder_target,
    check_output,
)
from busyapi.archive_cli.increment import Increment, format_position
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.selection import Selection, print_error
from busyapi.archive_cli.snapshot import ArchiveNotFound
from busyapi.errors import ArchiveError
from busyapi.output import write_output


class PyarrowMissing(ArchiveError):
    """This needs pyarrow: run `.venv/bin/pip install -e '.[parquet]'` in a clone."""


def run_export(options: argparse.Namespace) -> int:
    """Write archived usages into a table: Parquet, CSV, NDJSON or Arrow.

    Columns: id, received_at, device_time, device_time_text, patient_id, medication, tenant, writer,
    partition and extra (all further members, as JSON). The file appears when it is complete. With
    --after-id, one export continues where the last one ended. Needs pyarrow: in a clone, run
    `.venv/bin/pip install -e '.[parquet]'`.
    """
    check_export_options(options)
    to_stdout = options.file == STDOUT
    if to_stdout:
        check_output()
    elif options.partition_by:
        check_folder_target(options.file)
    else:
        check_file_target(options.file, replace=options.replace)
    _require_pyarrow()
    from busyapi.archive_cli.export import export_table  # noqa: PLC0415 - loads pyarrow

    if options.only is not None:
        (status,) = find_partitions(options.dir, options.only)
        if status.problem == "missing":
            # An empty table must not take the place of a file.
            raise ArchiveNotFound(status.error)
    selection = Selection(options)
    # The record follows the checks of the target, before the first usage is read.
    blocks = record_before(options, selection.read_lines("exporting", stdout_has_data=to_stdout))
    rows = export_table(
        blocks,
        None if to_stdout else options.file,
        choose_format(options),
        options.flatten,
        by_day=bool(options.partition_by),
        replace=options.replace,
        metadata=_describe_increment(selection.increment),
    )
    report = sys.stderr.write if to_stdout else write_output
    report(f"{rows} usages in {'standard output' if to_stdout else options.file}\n")
    if selection.increment and selection.has_errors:
        print_error(
            "this increment is incomplete: repair the archive, and export it again with"
            f" --after-id {format_position(selection.increment.after)}"
        )
    elif selection.increment:
        report(f"continue with --after-id {format_position(selection.increment.through)}\n")
    return 1 if selection.has_errors else 0


def _require_pyarrow() -> None:
    try:
        import pyarrow as pa  # noqa: F401, PLC0415 - an extra, and slow to load
    except ImportError:
        raise PyarrowMissing from None


def _describe_increment(increment: Increment | None) -> dict[str, str]:
    if increment is None:
        return {}
    return {
        "after_id": format_position(increment.after),
        "through_id": format_position(increment.through),
    }
