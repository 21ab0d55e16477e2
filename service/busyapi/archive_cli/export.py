"""Export to Parquet. No other module imports pyarrow, which is loaded only for this."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from busyapi.archive.archived_usage import ArchivedUsage, extract_usage, parse_line
from busyapi.archive_cli.export_target import open_target
from busyapi.errors import ArchiveError

ROW_GROUP_ROWS = 65_536
"""Rows in one row group, which this process, and later a reader of the file, holds in memory."""


class PyarrowMissing(ArchiveError):
    """Parquet needs pyarrow: run `.venv/bin/pip install -e '.[parquet]'` in a clone."""


def export_parquet(blocks: Iterable[list[bytes]], target: Path) -> int:
    """Write lines into a Parquet file, all or nothing; return the number of lines.

    Raises:
        PyarrowMissing: pyarrow is not installed.
        WrongTarget: the target cannot be written; no line was read.
        OSError: the target could not be written completely, and is as before.
        ArchiveDamaged: a line is invalid.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to load
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise PyarrowMissing from None
    text = pa.string()
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("received_at", pa.timestamp("ms", tz="UTC"), nullable=False),
            pa.field("patient_id", text),
            pa.field("medication", text),
            pa.field("timestamp", text),
            pa.field("usage", text, nullable=False),
            pa.field("writer", text),
            pa.field("tenant", text),
        ]
    )
    rows = 0
    with (
        open_target(target) as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for group in _group_rows(blocks):
            writer.write_batch(pa.record_batch(_make_columns(group), schema=schema))
            rows += len(group)
    return rows


def _group_rows(blocks: Iterable[list[bytes]]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    for line in chain.from_iterable(blocks):
        group.append(line)
        if len(group) == ROW_GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group


def _make_columns(group: list[bytes]) -> list[list[Any]]:
    rows: list[ArchivedUsage] = [parse_line(line) for line in group]
    return [
        [row.id for row in rows],
        [datetime.fromisoformat(row.received_at) for row in rows],
        [_to_text(row.usage.get("patientId")) for row in rows],
        [_to_text(row.usage.get("medication")) for row in rows],
        [_to_text(row.usage.get("timestamp")) for row in rows],
        [extract_usage(line).decode() for line in group],
        [row.writer for row in rows],
        [row.tenant for row in rows],
    ]


def _to_text(value: object) -> str | None:
    """Return a member as text, None if it is neither text nor a number (an id may be a number)."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
