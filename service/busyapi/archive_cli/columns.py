"""Archived lines as Arrow record batches with typed columns: docs/reference/columns.md.

This is the only place that makes the columns.

    lines of a block ──plain_lines──> columns ──┐
          └─ lines of another layout ──parsed_lines──> columns ──┴──> record batch
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from busyapi.archive.archived_usage import read_value, render_value
from busyapi.archive_cli.device_times import parse_texts
from busyapi.archive_cli.export_options import Flattened
from busyapi.archive_cli.parsed_lines import TEXT, TIME, LineColumns, parse_lines
from busyapi.archive_cli.plain_lines import read_plain_lines
from busyapi.decode.timestamp import MAX_TIME_MS, compute_unix_ms

SCHEMA_VERSION = "1"
"""Changes with the meaning of a column. A column may be added without a change."""
SCHEMA_KEY = "busyapi.columns"
"""The metadata of the schema that holds the version; Parquet and Arrow files keep it."""

_FIELDS = [
    pa.field("id", pa.int64(), nullable=False),
    pa.field("received_at", TIME, nullable=False),
    pa.field("device_time", TIME),
    pa.field("device_time_text", TEXT),
    pa.field("patient_id", TEXT),
    pa.field("medication", TEXT),
    pa.field("tenant", TEXT),
    pa.field("writer", TEXT),
    pa.field("partition", pa.int32(), nullable=False),
    pa.field("extra", TEXT),
]


def make_schema(flattened: Sequence[Flattened] = (), **metadata: str) -> pa.Schema:
    """Return the schema, with a column of text for each path, and further metadata."""
    fields = [*_FIELDS, *(pa.field(path.column, TEXT) for path in flattened)]
    named = {f"busyapi.{name}": value for name, value in metadata.items()}
    return pa.schema(fields, named | {SCHEMA_KEY: SCHEMA_VERSION})


def make_batch(
    blocks: Sequence[bytes],
    partition: int,
    schema: pa.Schema,
    flattened: Sequence[Flattened] = (),
) -> pa.RecordBatch:
    """Return the columns of lines of one partition, each with its newline, in their order.

    Raises:
        ArchiveDamaged: one is not a line of the archive.
    """
    # A block at a time fits into the processor's cache; the rest costs less for many usages.
    parts = [part for lines in blocks for part in _read_block(lines)]
    read = LineColumns(*map(pa.concat_arrays, zip(*parts, strict=True)))
    device_time, device_text = _make_times(read)
    columns = [
        read.id,
        read.received_at,
        device_time,
        device_text,
        *(read.patient_id, read.medication, read.tenant, read.writer),
        pa.repeat(pa.scalar(partition, pa.int32()), len(read.id)),
        read.extra,
        *_flatten(read.extra, flattened),
    ]
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    # Of a block, the plain lines come first.
    is_in_order = pc.all(pc.less(read.id[:-1], read.id[1:])).as_py()
    return batch if is_in_order else batch.take(pc.sort_indices(batch, [("id", "ascending")]))


def _read_block(lines: bytes) -> Iterator[LineColumns]:
    plain, others = read_plain_lines(lines)
    if plain is not None:
        yield plain
    if others:
        yield parse_lines(others)


def _make_times(read: LineColumns) -> tuple[pa.Array, pa.Array]:
    """Return the instants and the texts of the timestamps."""
    texts, numbers, others = read.stamp_text, read.stamp_number, read.stamp_other
    times = parse_texts(texts, numbers)
    if numbers.null_count < len(numbers):
        in_range = pc.and_(
            pc.less_equal(numbers, MAX_TIME_MS), pc.greater_equal(numbers, -MAX_TIME_MS)
        )
        times = pc.coalesce(pc.if_else(in_range, numbers, None).cast(TIME), times)
    if others.null_count < len(others):
        values = [None if text is None else read_value(text) for text in others.to_pylist()]
        parsed = pa.array([compute_unix_ms(value) for value in values], pa.int64())
        times, texts = pc.coalesce(times, parsed.cast(TIME)), pc.coalesce(texts, others)
    return times, texts


def _flatten(extra: pa.Array, flattened: Sequence[Flattened]) -> Iterator[pa.Array]:
    """Yield the value at each path as text; null if there is none, or it is null."""
    if not flattened:
        return
    values = [None if text is None else read_value(text) for text in extra.to_pylist()]
    for path in flattened:
        yield pa.array([_find_text(value, path.keys) for value in values], TEXT)


def _find_text(value: Any, keys: Sequence[str]) -> str | None:
    for key in keys:
        value = _get_item(value, key)
    return value if value is None or isinstance(value, str) else render_value(value)


def _get_item(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value.get(key)
    if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
        return value[int(key)]
    return None
