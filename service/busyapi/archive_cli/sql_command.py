"""`busyapi archive sql`: what is checked before any work."""

import argparse
import sys

from busyapi.archive_cli.export_record import record_export
from busyapi.archive_cli.export_target import check_output
from busyapi.archive_cli.selection import Selection
from busyapi.archive_cli.sql_options import SqlFormat
from busyapi.errors import ArchiveError


class DuckdbMissing(ArchiveError):
    """This needs DuckDB: run `.venv/bin/pip install -e '.[sql]'` in a clone."""


def run_sql(options: argparse.Namespace) -> int:
    """Query archived usages with SQL.

    The view `usages` has the columns of an export: id, received_at, device_time, device_time_text,
    patient_id, medication, tenant, writer, partition and extra. It has what is archived when the
    command starts. --from, --to, --patient and the other options select what is in the view: they
    are faster than a WHERE, which reads everything. The query can read nothing else and write
    nothing. Needs DuckDB: in a clone, run `.venv/bin/pip install -e '.[sql]'`.
    """
    if options.format is SqlFormat.PARQUET:
        check_output()
    try:
        from busyapi.archive_cli.sql_engine import run_query  # noqa: PLC0415 - an extra, and slow
    except ImportError:
        raise DuckdbMissing from None
    selection = Selection(options)
    selection.fix_end()
    run_query(selection, options.query, options.format, lambda: record_export(options))
    if selection.has_errors:
        sys.stderr.write("busyapi: the answer lacks the usages that could not be read\n")
    return 1 if selection.has_errors else 0
