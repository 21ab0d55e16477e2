"""The options of `archive export`. This module does not need pyarrow."""

import argparse
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from busyapi.archive_cli.increment import parse_position
from busyapi.archive_cli.selection import WrongOptions, add_query_options

COLUMNS = (
    *("id", "received_at", "device_time", "device_time_text", "patient_id", "medication"),
    *("tenant", "writer", "partition", "extra"),
)
STDOUT = Path("-")


class ExportFormat(StrEnum):
    """The format of an exported file, which is also the suffix of its name."""

    PARQUET = "parquet"
    CSV = "csv"
    NDJSON = "ndjson"
    ARROW = "arrow"


class Flattened(NamedTuple):
    """A path into the free members, whose value gets a column of its own."""

    column: str
    keys: tuple[str, ...]


def parse_target(text: str) -> Path:
    """Parse the name of a file to write, as an argument type."""
    if not text:
        raise argparse.ArgumentTypeError("the name of the file is empty")
    return Path(text)


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "file", type=parse_target, metavar="FILE", help="what to write; - for standard output"
    )
    parser.add_argument(
        "--format",
        type=ExportFormat,
        choices=list(ExportFormat),
        help="parquet, csv, ndjson or arrow (default: by the suffix of FILE, otherwise parquet)",
    )
    parser.add_argument(
        "--partition-by",
        choices=["day"],
        help="make FILE a folder, with a folder for each UTC day on which usages were received",
    )
    parser.add_argument(
        "--after-id",
        type=parse_position,
        metavar="POSITION",
        help="an increment: what was archived since the last one. Begin with 0, and continue with"
        " the position that is printed: the last exported id of each partition",
    )
    parser.add_argument(
        "--flatten",
        action="append",
        default=[],
        type=_parse_path,
        metavar="POINTER",
        help="add a column for a further member, as /device/battery (JSON Pointer)",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace FILE if it exists, when the new one is complete",
    )
    add_query_options(parser)


def check_export_options(options: argparse.Namespace) -> None:
    """Check that the options fit each other.

    Raises:
        WrongOptions: they do not.
    """
    by_day = bool(options.partition_by)
    if by_day and (options.file == STDOUT or options.replace):
        other = "--replace" if options.replace else "- as FILE"
        raise WrongOptions(f"--partition-by makes a folder: leave out {other}")
    names = [*COLUMNS, *(path.column for path in options.flatten)]
    double = {name for name in names if names.count(name) > 1}
    if double:
        raise WrongOptions(f"--flatten: there is more than one column {' and '.join(double)}")


def choose_format(options: argparse.Namespace) -> ExportFormat:
    """Return the format that is asked for, or that the suffix of the file names."""
    if options.format:
        return ExportFormat(options.format)
    suffix = options.file.suffix.removeprefix(".").lower()
    return ExportFormat(suffix) if suffix in list(ExportFormat) else ExportFormat.PARQUET


def _parse_path(text: str) -> Flattened:
    """Parse a JSON Pointer (RFC 6901); its column has points for the slashes."""
    keys = [key.replace("~1", "/").replace("~0", "~") for key in text.split("/")]
    if keys[0] or len(keys) == 1 or not keys[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not a path such as /device/battery")
    return Flattened(".".join(keys[1:]), tuple(keys[1:]))
