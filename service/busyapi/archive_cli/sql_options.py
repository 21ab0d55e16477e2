"""The options of `archive sql`. This module does not need DuckDB."""

import argparse
from enum import StrEnum

from busyapi.archive_cli.selection import add_query_options


class SqlFormat(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    NDJSON = "ndjson"
    PARQUET = "parquet"


def add_sql_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "query", metavar="SELECT", help="one query in DuckDB's SQL, over the view usages"
    )
    parser.add_argument(
        "--format",
        type=SqlFormat,
        choices=list(SqlFormat),
        default=SqlFormat.TABLE,
        help="table, csv, json, ndjson or parquet (default: table)",
    )
    add_query_options(parser)
