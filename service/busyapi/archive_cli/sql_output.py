"""The rows of a query on standard output, a batch at a time."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from busyapi.archive_cli.export_formats import adapt_file
from busyapi.archive_cli.export_target import open_output
from busyapi.archive_cli.sql_options import SqlFormat
from busyapi.output import write_output

_SPACE = "  "


def print_rows(reader: pa.RecordBatchReader, kind: SqlFormat) -> None:
    """Print all rows."""
    if kind is SqlFormat.PARQUET:
        _write_parquet(reader)
        return
    names, batches = reader.schema.names, (_read_rows(batch) for batch in reader)
    render = {
        SqlFormat.TABLE: _render_table,
        SqlFormat.CSV: _render_csv,
        SqlFormat.JSON: _render_json,
        SqlFormat.NDJSON: _render_ndjson,
    }[kind]
    for text in render(names, batches):
        write_output(text)


def _write_parquet(reader: pa.RecordBatchReader) -> None:
    with open_output() as output:
        file = adapt_file(output)
        try:
            writer = parquet.ParquetWriter(file, reader.schema, compression="zstd")
            for batch in reader:
                writer.write_batch(batch)
            writer.close()
        except BaseException:
            file.discard()  # the writer would complete the file when it is collected
            raise


Rows = list[tuple[Any, ...]]


def _read_rows(batch: pa.RecordBatch) -> Rows:
    columns = [map(_simplify, column.to_pylist()) for column in batch.columns]
    return list(zip(*columns, strict=True))


def _simplify(value: Any) -> Any:
    """Return a value as JSON has it."""
    match value:
        case datetime():
            return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case date() | time() | timedelta():
            return str(value)
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case float() if not isfinite(value):
            return None  # JSON has no NaN
        case bytes():
            return value.hex()
        case pa.MonthDayNano():
            return _format_interval(value)
        case list() | tuple():  # a map has tuples
            return [_simplify(item) for item in value]
        case dict():
            return {name: _simplify(item) for name, item in value.items()}
    return value


def _format_interval(interval: pa.MonthDayNano) -> str:
    """Return an interval as DuckDB prints it, such as "1 year 2 months -3 days 04:05:06.5"."""
    sign = -1 if interval.months < 0 else 1
    years, months = divmod(abs(interval.months), 12)
    numbers = {"year": sign * years, "month": sign * months, "day": interval.days}
    parts = [f"{n} {unit}{'s' * (abs(n) > 1)}" for unit, n in numbers.items() if n]
    if interval.nanoseconds or not parts:
        seconds, micros = divmod(abs(interval.nanoseconds) // 1000, 1_000_000)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        time = f"{hours:02}:{minutes:02}:{seconds:02}" + f".{micros:06}".rstrip("0").rstrip(".")
        parts.append("-" * (interval.nanoseconds < 0) + time)
    return " ".join(parts)


def _format_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _render_table(names: list[str], batches: Iterator[Rows]) -> Iterator[str]:
    """Yield aligned lines. The first batch decides the widths."""
    widths: list[int] = []
    for rows in batches:
        lines = [list(map(_format_cell, row)) for row in rows]
        if not widths:
            widths = [max(map(len, column)) for column in zip(names, *lines, strict=True)]
            yield _align(names, widths)
        yield from (_align(line, widths) for line in lines)
    if not widths:
        yield _align(names, list(map(len, names)))


def _format_cell(value: Any) -> str:
    """Return a value without characters that change a terminal or the layout."""
    text = _format_text(value)
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _align(cells: list[str], widths: list[int]) -> str:
    return _SPACE.join(map(str.ljust, cells, widths)).rstrip() + "\n"


def _render_csv(names: list[str], batches: Iterator[Rows]) -> Iterator[str]:
    yield _write_csv([tuple(names)])
    for rows in batches:
        yield _write_csv([tuple(map(_format_text, row)) for row in rows])


def _write_csv(rows: Rows) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _render_ndjson(names: list[str], batches: Iterator[Rows]) -> Iterator[str]:
    for rows in batches:
        yield "".join(_render_object(names, row) + "\n" for row in rows)


def _render_json(names: list[str], batches: Iterator[Rows]) -> Iterator[str]:
    yield "["
    separator = "\n"
    for rows in batches:
        for row in rows:
            yield separator + _render_object(names, row)
            separator = ",\n"
    yield "\n]\n"


def _render_object(names: list[str], row: tuple[Any, ...]) -> str:
    return json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False)
