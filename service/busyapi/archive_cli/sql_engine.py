"""DuckDB over an archive: a view whose every scan reads the selected usages as Arrow batches.

Only this module imports duckdb. The query cannot reach files, the network or Python's variables:
all of that is disabled, and the configuration locked, before the query is parsed.
"""

from collections.abc import Callable, Iterator

import duckdb
import pyarrow as pa

from busyapi.archive_cli.columns import make_schema
from busyapi.archive_cli.export import make_batches
from busyapi.archive_cli.selection import Selection, WrongOptions
from busyapi.archive_cli.sql_options import SqlFormat
from busyapi.archive_cli.sql_output import print_rows
from busyapi.errors import ArchiveError

BATCH_ROWS = 10_000
NAMED_FORMATS = (SqlFormat.JSON, SqlFormat.NDJSON)
"""An object has one member of a name."""
LOCKDOWN = (
    "SET TimeZone = 'UTC'",
    "SET temp_directory = ''",  # usages must not be left on a disk
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


class QueryFailed(ArchiveError):
    """The query failed."""


def run_query(
    selection: Selection, query: str, kind: SqlFormat, record: Callable[[], None]
) -> None:
    """Run a query, and print its rows. `record` is called before the first usage is read.

    Raises:
        WrongOptions: it is not one SELECT, or names a column that does not exist.
        QueryFailed: DuckDB cannot finish it.
        ArchiveDamaged: a line is not a line of the archive.
    """
    usages = _Usages(selection)
    with duckdb.connect(":memory:", config={"python_enable_replacements": "false"}) as connection:
        connection.register("archive_lines", usages)
        connection.execute("CREATE VIEW usages AS SELECT * FROM archive_lines")
        for statement in LOCKDOWN:
            connection.execute(statement)
        try:
            _require_select(connection, query)
            relation = connection.sql(query)
        except duckdb.Error as error:
            raise WrongOptions(str(error)) from None
        if kind in NAMED_FORMATS and len(set(relation.columns)) < len(relation.columns):
            raise WrongOptions("two columns have one name: name them with AS")
        record()
        try:
            print_rows(relation.to_arrow_reader(BATCH_ROWS), kind)
        except (duckdb.Error, pa.ArrowException) as error:
            raise usages.failure or QueryFailed(_describe(error)) from None
        except OverflowError:
            raise QueryFailed(
                "a time is before the year 1 or after the year 9999: select device_time_text"
            ) from None


def _require_select(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    statements = connection.extract_statements(query)
    if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
        raise WrongOptions("the query must be one SELECT")


def _describe(error: Exception) -> str:
    if isinstance(error, duckdb.OutOfMemoryException):
        return "the query needs too much memory: select less with --from, --to or --patient"
    if isinstance(error, pa.ArrowNotImplementedError):
        return f"the format lacks a type of the answer: cast it to VARCHAR ({error})"
    kind = str(error).partition(":")[0] if isinstance(error, duckdb.Error) else "Arrow Error"
    return (
        f"{kind}. The rest of the message may quote a usage, and is not shown. TRY_CAST and TRY"
        " give NULL instead of this error"
    )


class _Usages:
    """The archived usages, read again for each scan. DuckDB calls `__arrow_c_stream__`."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._schema = make_schema()
        self.failure: ArchiveError | None = None
        """Why a scan ended. DuckDB's own error has only its text."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        # DuckDB also makes streams only to see the schema. Those read nothing.
        reader = pa.RecordBatchReader.from_batches(self._schema, self._read())
        return reader.__arrow_c_stream__(requested_schema)

    def _read(self) -> Iterator[pa.RecordBatch]:
        try:
            lines = self._selection.read_lines("reading", stdout_has_data=True)
            yield from make_batches(lines, self._schema)
        except ArchiveError as error:
            self.failure = error
            raise
