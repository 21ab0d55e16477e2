"""Joins small data files of a day to larger ones, in little memory.

All files are sorted by patient. So they are merged as sorted lists are: of each file some rows are
in memory, and all rows are written up to the patient up to whom every file has been read.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from heapq import nsmallest

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from busyapi.lake.data_files import FILE_PREFIX, sort_rows, write_file
from busyapi.lake.schema import FILE_SCHEMA
from busyapi.lake.table import LakeTable, list_files

TARGET_BYTES = 64 << 20
"""A file of this size is not merged again."""
MAX_INPUTS = 32
"""Files that are merged at a time: each one has rows in memory."""
INPUT_ROWS = 1 << 14
"""Rows of each file that are in memory at a time; fewer, if they are long."""
MERGE_BYTES = 24 << 20
"""Rows of all files that are in memory at a time, which are copied a few times."""
READ_ROWS = 1 << 10
"""Rows that are read at once: how long they are is known only then."""
SETTLED_AFTER = timedelta(hours=6)
"""After the end of a day, when few usages of it are still to come."""


def compact(
    lake: LakeTable,
    settled_before: date = date.min,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Merge what is due; return the number of files that were replaced.

    Of the days before `settled_before`, also files that stay small are merged. `should_stop` is
    asked before each merge.
    """
    replaced = 0
    while not should_stop():
        table = lake.load()
        due = find_due(list_files(table), settled_before)
        if due is None:
            break
        day, files = due
        written_at = time.time()
        merged = write_file(table, day, merge_files(table, files))
        if not lake.replace(files, merged, written_at):
            break  # another process is busy here: the next turn looks again
        replaced += len(files)
    return replaced


def find_settled_days(now: datetime) -> date:
    """Return the first day of which more usages are to come."""
    return (now - SETTLED_AFTER).date()


def find_due(files: Sequence[DataFile], settled_before: date) -> tuple[date, list[DataFile]] | None:
    """Return small files of one day that should become one; None if there are none.

    They should if together they are large enough, if they are many, or if the day is settled.
    """
    days: dict[date, list[DataFile]] = defaultdict(list)
    for file in files:
        is_own = file.file_path.rpartition("/")[2].startswith(FILE_PREFIX)
        if is_own and file.file_size_in_bytes < TARGET_BYTES:
            days[_day_of(file)].append(file)
    for day, small in sorted(days.items()):
        size = sum(file.file_size_in_bytes for file in small)
        is_settled = day < settled_before
        if len(small) > 1 and (is_settled or size >= TARGET_BYTES or len(small) >= MAX_INPUTS):
            return day, _choose(small)
    return None


def _choose(small: list[DataFile]) -> list[DataFile]:
    """Return the smallest files, until they are large enough."""
    chosen: list[DataFile] = []
    size = 0
    for file in nsmallest(MAX_INPUTS, small, key=lambda file: file.file_size_in_bytes):
        if size >= TARGET_BYTES:
            break
        chosen.append(file)
        size += file.file_size_in_bytes
    return chosen


def _day_of(file: DataFile) -> date:
    return date(1970, 1, 1) + timedelta(days=file.partition[0])


def merge_files(table: Table, files: Sequence[DataFile]) -> Iterator[pa.Table]:
    """Yield the rows of sorted files, sorted; each part continues the one before."""
    inputs = [_Input(table, file, MERGE_BYTES // len(files)) for file in files]
    while inputs := [one for one in inputs if one.fill()]:
        # Each file may have more rows of the last patient in memory, and none of those before.
        limit = min((one.last_patient for one in inputs), key=_patient_key)
        yield sort_rows(pa.concat_tables([one.take(limit) for one in inputs]))


def _patient_key(patient: str | None) -> tuple[bool, bytes]:
    """Sort as Arrow does: by bytes, none first."""
    return patient is not None, (patient or "").encode()


class _Input:
    """A sorted file, of which some rows are in memory."""

    def __init__(self, table: Table, file: DataFile, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._stream = table.io.new_input(file.file_path).open()
        reader = parquet.ParquetFile(self._stream, pre_buffer=False, buffer_size=1 << 16)
        groups = (reader.metadata.row_group(at) for at in range(reader.num_row_groups))
        # In memory they are longer: a file has a text that repeats once.
        row_bytes = sum(group.total_byte_size for group in groups) // file.record_count + 1
        rows = min(INPUT_ROWS, READ_ROWS, max_bytes // row_bytes + 1)
        self._batches = reader.iter_batches(rows, use_threads=False)
        self._rows = FILE_SCHEMA.empty_table()

    def fill(self) -> bool:
        """Read rows if none is in memory; return whether there are any."""
        if self._rows.num_rows:
            return True
        batches = [*self._read()]
        if not batches:
            self._stream.close()
            return False
        self._rows = pa.Table.from_batches(batches).cast(FILE_SCHEMA)
        return True

    def _read(self) -> Iterator[pa.RecordBatch]:
        rows = size = 0
        for batch in self._batches:
            yield batch
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows >= INPUT_ROWS or size >= self._max_bytes:
                break

    @property
    def last_patient(self) -> str | None:
        """The patient of the last row in memory."""
        patient: str | None = self._rows["patient_id"][-1].as_py()
        return patient

    def take(self, limit: str | None) -> pa.Table:
        """Remove and return the rows of patients up to `limit`; None is the first."""
        patients = self._rows["patient_id"]
        count = patients.null_count
        if limit is not None:
            count += pc.sum(pc.less_equal(patients, limit)).as_py() or 0
        taken, self._rows = self._rows.slice(0, count), self._rows.slice(count)
        return taken
