"""The formats of an export: Parquet, CSV, NDJSON and Arrow."""

from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from busyapi.archive.archived_usage import render_lines_of_values
from busyapi.archive_cli.export_options import ExportFormat
from busyapi.archive_cli.export_target import ByteSink

ROW_GROUP_ROWS = 1 << 19
"""Rows of a row group. This process and a reader hold one in memory, 100 MB or less. More rows
share one dictionary of patients."""


class _Sink(Protocol):
    def write_batch(self, batch: pa.RecordBatch) -> None: ...
    def close(self) -> None: ...


class TableWriter:
    """Writes record batches to a file, which stays open. After an error it writes nothing more."""

    def __init__(
        self, file: ByteSink, kind: ExportFormat, schema: pa.Schema, *, is_stream: bool = False
    ) -> None:
        """Begin. `is_stream`: the file is not complete before it is read."""
        self._file = _PositionedFile(file)
        self._sink = _open_sink(self._file, kind, schema, is_stream=is_stream)

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch."""
        self._sink.write_batch(batch)

    def close(self) -> None:
        """Complete the file."""
        self._sink.close()

    def abandon(self) -> None:
        """Write nothing more: the file must not look complete."""
        self._file.discard()
        with suppress(Exception):  # it may have failed in the middle of a page
            self._sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def adapt_file(file: ByteSink) -> "_PositionedFile":
    """Return a file as pyarrow needs it; after `discard` nothing more is written to it."""
    return _PositionedFile(file)


class _PositionedFile:
    """A file as pyarrow needs it: also a pipe has a position."""

    closed = False

    def __init__(self, file: ByteSink) -> None:
        self._file: ByteSink | None = file
        self._position = 0

    def write(self, data: Any) -> int:
        raw = bytes(data)
        if self._file:
            self._file.write(raw)
        self._position += len(raw)
        return len(raw)

    def discard(self) -> None:
        self._file = None

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def _open_sink(
    file: _PositionedFile, kind: ExportFormat, schema: pa.Schema, *, is_stream: bool
) -> _Sink:
    sink: _Sink
    match kind:
        case ExportFormat.PARQUET:
            sink = _ParquetSink(file, schema)
        case ExportFormat.CSV:
            sink = _CsvSink(file, schema)
        case ExportFormat.NDJSON:
            sink = _NdjsonSink(file)
        case ExportFormat.ARROW:
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            open_file = pa.ipc.new_stream if is_stream else pa.ipc.new_file
            sink = open_file(file, schema, options=options)
    return sink


class _ParquetSink:
    """Collects batches to row groups."""

    def __init__(self, file: _PositionedFile, schema: pa.Schema) -> None:
        # Ids and times are near those of the row before. Of the texts only these repeat.
        self._writer = parquet.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=[
                *("received_at", "patient_id", "medication", "tenant", "writer", "partition")
            ],
            column_encoding={"id": "DELTA_BINARY_PACKED", "device_time": "DELTA_BINARY_PACKED"},
        )
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0

    def write_batch(self, batch: pa.RecordBatch) -> None:
        if self._batches and self._rows + batch.num_rows > ROW_GROUP_ROWS:
            self._flush()
        self._batches.append(_sort(batch))
        self._rows += batch.num_rows

    def close(self) -> None:
        if self._batches:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._batches)
        self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        self._batches, self._rows = [], 0


def _sort(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Sort rows by the spelling of their time and the time: neighbours then compress well.

    The three columns about time take a quarter of the space that they take in the order of ids.
    """
    spelling = pc.binary_length(batch.column("device_time_text")).cast(pa.int64())
    time = batch.column("device_time").cast(pa.int64())
    # One key is sorted in half of the time that two take. It need not be exact for far times.
    key = pc.add(pc.shift_left(pc.bit_wise_and(spelling, 0xFF), 48), time)
    return batch.take(pc.array_sort_indices(key))


class _CsvSink:
    """A line a row, below a line with the names."""

    def __init__(self, file: _PositionedFile, schema: pa.Schema) -> None:
        self._writer = csv.CSVWriter(file, schema)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(_drop_far_times(batch))

    def close(self) -> None:
        self._writer.close()


class _NdjsonSink:
    """A JSON object a row, with `extra` as an object in it, and times as RFC 3339."""

    def __init__(self, file: _PositionedFile) -> None:
        self._file = file

    def write_batch(self, batch: pa.RecordBatch) -> None:
        for part in _cut(_drop_far_times(batch)):
            columns = [_to_json_values(column) for column in part.columns]
            names = part.schema.names
            self._file.write(render_lines_of_values(names, columns, raw="extra"))

    def close(self) -> None:
        pass


_NDJSON_ROWS = 8192
_FIRST_MS, _END_MS = -1_096_193_779_200_000, 971_890_963_200_000
"""The years -32767 to 32767. Arrow cannot write others as text."""


def _drop_far_times(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Leave out each `device_time` that Arrow cannot write. `device_time_text` has it."""
    at = batch.schema.get_field_index("device_time")
    times = batch.column(at)
    ms = times.cast(pa.int64())
    is_near = pc.and_(pc.greater_equal(ms, _FIRST_MS), pc.less(ms, _END_MS))
    near = pc.if_else(is_near, times, pa.scalar(None, times.type))
    return batch.set_column(at, batch.schema.field(at), near)


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    return (batch.slice(at, _NDJSON_ROWS) for at in range(0, batch.num_rows, _NDJSON_ROWS))


def _to_json_values(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        text = column.cast(pa.string())
        column = pc.replace_substring(text, " ", "T", max_replacements=1)
    values: list[Any] = column.to_pylist()
    return values
