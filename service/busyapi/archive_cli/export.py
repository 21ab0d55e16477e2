"""`archive export`: archived usages as a table of typed columns, all or nothing.

    lines of blocks ──columns──> record batch ──export_formats──> file, folder of days, or stdout

Only this module, `columns`, `device_times` and `export_formats` import pyarrow, which is an extra.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa
import pyarrow.compute as pc

from busyapi.archive_cli.columns import make_batch, make_schema
from busyapi.archive_cli.export_formats import TableWriter
from busyapi.archive_cli.export_options import ExportFormat, Flattened
from busyapi.archive_cli.export_target import open_folder, open_output, open_target
from busyapi.archive_cli.selection import SelectedLines

BATCH_BYTES = 1 << 23
"""Bytes of lines, uncompressed, in one record batch."""
MAX_OPEN_DAYS = 3
"""Files of days that are open at a time. Usages of one day may be received around midnight of an
API process whose clock is late; whatever comes later gets a file of its own."""


def export_table(
    blocks: Iterable[SelectedLines],
    target: Path | None,
    kind: ExportFormat,
    flattened: Sequence[Flattened] = (),
    *,
    by_day: bool = False,
    replace: bool = False,
    metadata: dict[str, str] | None = None,
) -> int:
    """Write lines as a table, and return the number of usages.

    `target`: None for standard output. With `by_day` it is a folder, with one folder a day in it.

    Raises:
        WrongTarget: the target cannot be written; no line was read.
        OSError: it could not be written completely, and is as before.
        ArchiveDamaged: a line is invalid.
    """
    schema = make_schema(flattened, **(metadata or {}))
    batches = make_batches(blocks, schema, flattened)
    if target is None:
        with open_output() as file, TableWriter(file, kind, schema, is_stream=True) as writer:
            return _write_all(batches, writer)
    if by_day:
        with open_folder(target) as folder:
            return _write_days(batches, folder, kind, schema)
    with (
        open_target(target, replace=replace) as file,
        TableWriter(file, kind, schema) as writer,
    ):
        return _write_all(batches, writer)


def _write_all(batches: Iterable[pa.RecordBatch], writer: TableWriter) -> int:
    rows = 0
    for batch in batches:
        writer.write(batch)
        rows += batch.num_rows
    return rows


def make_batches(
    blocks: Iterable[SelectedLines], schema: pa.Schema, flattened: Sequence[Flattened] = ()
) -> Iterator[pa.RecordBatch]:
    """Yield record batches. Blocks are joined: many archives have a block for a few usages."""
    for partition, group in _group_blocks(blocks):
        yield make_batch(group, partition, schema, flattened)


def _group_blocks(blocks: Iterable[SelectedLines]) -> Iterator[tuple[int, list[bytes]]]:
    group: list[bytes] = []
    size, number = 0, -1
    for partition, lines in blocks:
        if group and (partition != number or size >= BATCH_BYTES):
            yield number, _join_small(group)
            group, size = [], 0
        number = partition
        group.append(lines)
        size += len(lines)
    if group:
        yield number, _join_small(group)


def _join_small(blocks: list[bytes]) -> list[bytes]:
    """Join neighbours, so that each part but the last has a MiB."""
    joined: list[bytes] = []
    part: list[bytes] = []
    size = 0
    for lines in blocks:
        part.append(lines)
        size += len(lines)
        if size >= _MIN_PART_BYTES:
            joined.append(b"".join(part))
            part, size = [], 0
    return [*joined, b"".join(part)] if part else joined


_MIN_PART_BYTES = 1 << 20


def _write_days(
    batches: Iterable[pa.RecordBatch], folder: Path, kind: ExportFormat, schema: pa.Schema
) -> int:
    """Write a folder for each UTC day on which usages were received, as Hive names it."""
    rows = 0
    with _DayFiles(folder, kind, schema) as days:
        for batch in batches:
            dates = batch.column("received_at").cast(pa.date32())
            for day in pc.unique(dates).sort():
                days.write(str(day), batch.filter(pc.equal(dates, day)))
            rows += batch.num_rows
    return rows


class _DayFiles:
    """The files of days. Those of the latest days that were written to are open."""

    def __init__(self, folder: Path, kind: ExportFormat, schema: pa.Schema) -> None:
        self._folder, self._kind, self._schema = folder, kind, schema
        self._open: dict[str, ExitStack] = {}
        self._writers: dict[str, TableWriter] = {}
        self._parts: dict[str, int] = {}

    def write(self, day: str, batch: pa.RecordBatch) -> None:
        """Write usages of one day."""
        if day not in self._open:
            if len(self._open) == MAX_OPEN_DAYS:
                self._open.pop(next(iter(self._open))).close()
            self._open[day] = self._open_file(day)
        self._open[day] = self._open.pop(day)  # the one that was used last is the last one
        self._writers[day].write(batch)

    def _open_file(self, day: str) -> ExitStack:
        part = self._parts[day] = self._parts.get(day, 0) + 1
        place = self._folder / f"received_day={day}"
        place.mkdir(exist_ok=True)
        files = ExitStack()
        file = files.enter_context((place / f"usages-{part:04}.{self._kind}").open("xb"))
        files.callback(_sync, file)
        self._writers[day] = TableWriter(file, self._kind, self._schema)
        files.push(self._writers[day])
        return files

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for files in self._open.values():
            files.__exit__(kind, error, trace)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
