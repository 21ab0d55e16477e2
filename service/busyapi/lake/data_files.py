"""Data files: one day of usages each, sorted by patient, with a bloom filter of the patients."""

from collections.abc import Iterable, Iterator
from datetime import date
from secrets import token_hex

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet
from pyiceberg.io.pyarrow import parquet_file_to_data_file
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from busyapi.failpoints import failpoint
from busyapi.lake.schema import FILE_SCHEMA

FILE_PREFIX = "busyapi-"
"""Begins the name of each data file that busyapi writes."""
ROW_GROUP_ROWS = 1 << 18
"""Rows of a row group. A reader of one patient reads one, or a page of it."""
ROW_GROUP_BYTES = 64 << 20
"""Bytes in memory, which long usages reach with fewer rows."""
PAGE_CHECK_ROWS = 128
"""A page ends after so many rows if it has a megabyte: a reader of long usages holds a page."""
BLOOM_ERROR_RATE = 0.01


def split_days(rows: pa.Table) -> Iterator[tuple[date, pa.Table]]:
    """Yield the rows of each UTC day on which usages were received."""
    days = rows["received_at"].cast(pa.date32())
    unique = pc.unique(days).sort()
    for day in unique:
        yield day.as_py(), rows if len(unique) == 1 else rows.filter(pc.equal(days, day))


def sort_rows(rows: pa.Table) -> pa.Table:
    """Return the rows by patient; those without a patient come first."""
    patients = rows["patient_id"].combine_chunks().dictionary_encode()
    # Numbers are sorted in a third of the time that texts take.
    ranks = pc.rank(patients.dictionary, tiebreaker="dense").take(patients.indices)
    return rows.take(pc.array_sort_indices(ranks, null_placement="at_start"))


def write_file(table: Table, day: date, parts: Iterable[pa.Table]) -> DataFile:
    """Write a data file from sorted parts, each of which continues the one before."""
    name = f"received_day={day}/{FILE_PREFIX}{token_hex(16)}.parquet"
    location = table.location_provider().new_data_location(name)
    with table.io.new_output(location).create() as stream:
        writer: parquet.ParquetWriter | None = None
        try:
            for rows in _group_rows(parts):
                if writer is None:
                    writer = _open_writer(stream, rows)
                # Equal parts, so that none is small.
                parts_count = max(1, round(rows.num_rows / ROW_GROUP_ROWS))
                writer.write_table(rows, row_group_size=-(-rows.num_rows // parts_count))
                failpoint("lake-file-row-group")
                del rows  # before the next ones are made
        finally:
            if writer is not None:
                writer.close()
    # From what was written: a file that cannot be read is never committed.
    return parquet_file_to_data_file(table.io, table.metadata, location)


def _group_rows(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join parts, so that no row group is small."""
    waiting: list[pa.Table] = []
    for part in parts:
        waiting.append(part)
        is_long = sum(one.num_rows for one in waiting) >= ROW_GROUP_ROWS
        if is_long or sum(one.nbytes for one in waiting) >= ROW_GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _open_writer(stream: object, first: pa.Table) -> parquet.ParquetWriter:
    # Sorted by patient, a row group has about as many of them as the first one has.
    patients = max(1, pc.count_distinct(first["patient_id"]).as_py())
    return parquet.ParquetWriter(
        stream,
        FILE_SCHEMA,
        compression="zstd",
        use_dictionary=[*("patient_id", "medication", "tenant", "writer", "partition")],
        column_encoding=dict.fromkeys(("id", "received_at", "device_time"), "DELTA_BINARY_PACKED"),
        write_page_index=True,
        write_batch_size=PAGE_CHECK_ROWS,
        sorting_columns=parquet.SortingColumn.from_ordering(
            FILE_SCHEMA, [("patient_id", "ascending")], null_placement="at_start"
        ),
        bloom_filter_options={"patient_id": {"ndv": 2 * patients, "fpp": BLOOM_ERROR_RATE}},
    )
