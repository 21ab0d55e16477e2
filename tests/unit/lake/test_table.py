"""What the table holds, for every reader, and what it does when the archive is not complete."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import compute as pc
from pyarrow import parquet
from structlog.testing import capture_logs

from busyapi.archive_cli.accept_loss import accept_loss
from busyapi.archive_cli.columns import make_schema
from busyapi.archive_cli.export import make_batches
from busyapi.archive_cli.line_filter import Query
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.query import select_lines
from busyapi.archive_cli.selection import SelectedLines
from busyapi.ids import Seq
from busyapi.lake import compaction
from busyapi.lake.data_files import write_file
from busyapi.lake.maintenance import expire_snapshots, sweep
from busyapi.lake.positions import WrongTable, read_positions
from busyapi.lake.schema import FILE_SCHEMA
from busyapi.stamp import Stamp, encode_stamp
from testkit.archive.builder import (
    DAY_MS,
    RECEIVED_MS,
    change_identity,
    find_segments,
    join_usages,
    make_batch,
    make_usage,
    recover_writer,
)
from testkit.lake import open_lake, read_table, run_turn

STAMP = encode_stamp(Stamp("8nC3hQ2vXr0aLw_K", "clinic-7"))
ODD = [
    b'{"patientId":"a\xc3\xa4","timestamp":"Tue Nov 01 2016 09:11:51 GMT-0500","medication":"B"}'
    + STAMP,
    b'{"patientId":7,"timestamp":8640000000000000,"medication":"A","device":{"battery":1}}',
    b'{"patientId":true,"timestamp":"yesterday","medication":null}',
    b'{"patientId":"7","timestamp":"2016-11-01T09:11:51.250-05:00","medication":"A"}',
]


@pytest.fixture
def place(fast_path: Path) -> tuple[Path, Path]:
    """Return the folders of an archive and of a warehouse."""
    return fast_path / "archive", fast_path / "lake"


def write_segment(root: Path, *counts: int, day: int = 0) -> None:
    writer = recover_writer(root)
    for count in counts:
        writer.append([make_batch(writer.cursor + 1, count, RECEIVED_MS + day * DAY_MS)])
    writer.close()


def read_ids(warehouse: Path) -> list[int]:
    return sorted(read_table(warehouse)["id"].to_pylist())


def ids(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


def export(root: Path) -> pa.Table:
    lines = [
        SelectedLines(status.number, part)
        for status in find_partitions(root)
        if status.partition
        for part in select_lines(status.partition, Query(), pytest.fail)
    ]
    return pa.Table.from_batches(list(make_batches(lines, make_schema()))).cast(FILE_SCHEMA)


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return rows by id, with times as numbers: Python's datetime ends with the year 9999."""
    for name in ("received_at", "device_time"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pc.cast(table[name], pa.int64()))
    rows: list[dict[str, Any]] = table.sort_by("id").to_pylist()
    return rows


def test_every_reader_sees_the_columns_of_an_export(place: tuple[Path, Path]) -> None:
    root, warehouse = place
    writer = recover_writer(root)
    writer.append([join_usages(1, ODD), make_batch(5, 60)])
    writer.append([make_batch(65, 60, RECEIVED_MS + DAY_MS)])
    writer.close()
    assert run_turn(root, warehouse)
    expected = to_rows(export(root))
    lake = open_lake(warehouse)
    table = lake.load()
    rows = table.scan().to_arrow()
    assert to_rows(rows) == expected
    assert to_rows(pl.scan_iceberg(table).collect().to_arrow()) == expected
    tasks = [task.file for task in table.scan().plan_files()]
    paths = [file.file_path.removeprefix("file://") for file in tasks]
    engine = duckdb.connect()
    by_duckdb = engine.execute("from read_parquet(?, hive_partitioning = false)", [paths])
    assert to_rows(by_duckdb.to_arrow_table()) == expected
    only = table.scan(row_filter="patient_id = '7'").to_arrow()
    assert len(to_rows(only)) == sum(row["patient_id"] == "7" for row in expected) == 2
    for file, path in zip(tasks, paths, strict=True):
        part = parquet.read_table(path, partitioning=None)
        patients = part["patient_id"].to_pylist()
        assert patients == sorted(patients, key=lambda patient: (patient is not None, patient))
        assert len(pc.unique(pc.cast(part["received_at"], pa.date32()))) == 1
        probe = "select bloom_filter_excludes from parquet_bloom_probe(?, 'patient_id', ?)"
        assert engine.execute(probe, [path, "nobody"]).fetchall() == [(True,)]
        assert engine.execute(probe, [path, patients[-1]]).fetchall() == [(False,)]
        assert {1, 2, 5} <= file.lower_bounds.keys(), "no bounds of id, received_at or patient_id"


def test_a_day_becomes_one_sorted_file_and_the_others_are_deleted(
    place: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, warehouse = place
    lake = open_lake(warehouse)
    for day in (0, 0, 0, 0, 1):
        write_segment(root, 40, 30, day=day)
        run_turn(root, warehouse, tidies=False)
    monkeypatch.setattr(compaction, "INPUT_ROWS", 7)
    assert compaction.compact(lake, date(2026, 1, 1)) > 4
    files = [task.file for task in lake.load().scan().plan_files()]
    assert sorted(file.record_count for file in files) == [70, 280]
    assert read_ids(warehouse) == ids(1, 350)
    for file in files:
        patients = parquet.read_table(file.file_path.removeprefix("file://"), partitioning=None)[
            "patient_id"
        ].to_pylist()
        assert patients == sorted(patients)
    now = datetime.now(UTC) + timedelta(seconds=1)
    assert sweep(lake, now) == 0, "older snapshots still have the files"
    assert expire_snapshots(lake, now)
    assert sweep(lake) == 0, "a commit that is under way may have the files"
    assert sweep(lake, now)
    assert len([*warehouse.rglob("*.parquet")]) == 2
    assert read_ids(warehouse) == ids(1, 350)
    now = datetime.now(UTC)
    write_segment(root, 1)
    run_turn(root, warehouse, tidies=False)
    assert expire_snapshots(lake, now) == 0, "a query that began before the last commit may run"


def test_files_are_merged_in_little_memory_if_a_long_text_repeats(place: tuple[Path, Path]) -> None:
    table = open_lake(place[1]).load()
    count, parts = 10_000, 4
    values = {"patient_id": "7", "medication": "\u00e4" * 512, "partition": 0, "id": 1}
    values |= dict.fromkeys(("received_at", "device_time"), RECEIVED_MS * 1000)
    columns = [
        pa.repeat(pa.scalar(values.get(field.name), field.type), count) for field in FILE_SCHEMA
    ]
    rows = pa.table(columns, schema=FILE_SCHEMA)
    files = [write_file(table, date(2026, 1, 1), [rows]) for _ in range(parts)]
    assert max(file.file_size_in_bytes for file in files) < 100_000
    merged = [*compaction.merge_files(table, files)]
    assert sum(part.num_rows for part in merged) == count * parts
    assert max(part.nbytes for part in merged) < 32 << 20


def test_usages_that_retention_deleted_too_early_are_reported_and_recorded(
    place: tuple[Path, Path],
) -> None:
    root, warehouse = place
    for count in (3, 4, 5):
        write_segment(root, count)
    run_turn(root, warehouse)
    write_segment(root, 6)
    write_segment(root, 7)
    find_segments(root)[3].unlink()
    change_identity(root / "p00" / "partition.json", keptFrom=19)
    with capture_logs() as logs:
        assert run_turn(root, warehouse)
    missing = [line["ids"] for line in logs if line["event"] == "lake_usages_missing"]
    assert missing == ["ids 13 to 18"]
    assert read_ids(warehouse) == [*ids(1, 12), *ids(19, 25)]
    assert read_positions(open_lake(warehouse).load())[0].missing == ((13, 18),)
    with capture_logs() as logs:
        run_turn(root, warehouse)
    assert not [line for line in logs if line["event"] == "lake_usages_missing"]


def test_an_unreadable_block_stops_the_partition_until_it_is_repaired(
    place: tuple[Path, Path],
) -> None:
    root, warehouse = place
    write_segment(root, 50, 50, 50)
    write_segment(root, 5)
    (first, _) = find_segments(root)
    intact = first.read_bytes()
    at = len(intact) // 2 - 20
    first.write_bytes(intact[:at] + bytes([intact[at] ^ 1]) + intact[at + 1 :])
    with capture_logs() as logs:
        assert not run_turn(root, warehouse)
    assert [line for line in logs if line["event"] == "lake_problem"]
    assert read_ids(warehouse) == ids(1, 50)
    first.write_bytes(intact)
    assert run_turn(root, warehouse)
    assert read_ids(warehouse) == ids(1, 155)


def test_an_unreadable_usage_stops_only_its_partition(place: tuple[Path, Path]) -> None:
    root, warehouse = place
    for partition in (0, 1):
        writer = recover_writer(root, partition, 2)
        usages = [make_usage(seq) for seq in range(1, 41)]
        if not partition:
            usages[20] = b'{"patientId":"\\ud800"}'
        writer.append([join_usages(1, usages)])
        writer.close()
    with capture_logs() as logs:
        assert not run_turn(root, warehouse)
    (problem,) = [line for line in logs if line["event"] == "lake_problem"]
    assert (problem["partition"], "ids 1 to 79" in problem["detail"]) == (0, True)
    assert "ud800" not in str(logs)
    assert read_ids(warehouse) == [*range(2, 81, 2)]


def test_a_lost_segment_stops_the_partition_until_its_loss_is_accepted(
    place: tuple[Path, Path],
) -> None:
    root, warehouse = place
    for count in (3, 4, 5):
        write_segment(root, count)
    find_segments(root)[1].unlink()
    assert not run_turn(root, warehouse)
    assert read_ids(warehouse) == ids(1, 3)
    accept_loss(root, 0, Seq(7), "a test", confirmed=True)
    assert run_turn(root, warehouse)
    assert read_ids(warehouse) == [*ids(1, 3), *ids(8, 12)]


def test_another_or_an_older_archive_is_not_taken_into_the_table(
    place: tuple[Path, Path], tmp_path: Path
) -> None:
    root, warehouse = place
    write_segment(root, 3)
    write_segment(root, 4)
    run_turn(root, warehouse)
    newest = find_segments(root)[1]
    newest.unlink()
    with capture_logs() as logs:
        assert not run_turn(root, warehouse)
    assert "restored from a backup" in logs[0]["detail"]
    other = tmp_path / "other"
    write_segment(other, 20)
    with capture_logs() as logs:
        assert not run_turn(other, warehouse)
    assert "another archive" in logs[0]["detail"]
    assert read_ids(warehouse) == ids(1, 7)


def test_snapshots_of_other_programs_are_skipped_and_a_foreign_table_is_refused(
    place: tuple[Path, Path],
) -> None:
    root, warehouse = place
    write_segment(root, 3)
    run_turn(root, warehouse)
    lake = open_lake(warehouse)
    lake.load().delete("id < 4")
    write_segment(root, 4)
    expire_snapshots(lake, datetime.now(UTC) + timedelta(seconds=1))
    run_turn(root, warehouse)
    assert read_ids(warehouse) == ids(4, 7), "a deleted row does not come back"
    table = lake.load()
    table.delete("id < 8")
    table.maintenance.expire_snapshots().by_ids(
        [one.snapshot_id for one in table.snapshots() if one != table.current_snapshot()]
    ).commit()
    with pytest.raises(WrongTable, match="no snapshot of the table"):
        run_turn(root, warehouse)
