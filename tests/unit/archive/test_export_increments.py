"""Increments: `export --after-id` again and again is the archive, each usage once."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from busyapi.archive.writer import PartitionWriter
from busyapi.archive_cli.export_record import record_export
from busyapi.archive_cli.increment import (
    Increment,
    Position,
    format_position,
    parse_position,
    plan_increment,
)
from busyapi.archive_cli.line_filter import Query
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.query import select_lines
from busyapi.archive_cli.selection import Selection
from busyapi.audit.files import audit_folder
from busyapi.audit.patients import digest_patient
from busyapi.ids import Seq
from testkit.archive.builder import (
    RECEIVED_MS,
    abandon_writer,
    change_identity,
    find_open_segment,
    find_open_segments,
    make_batch,
    recover_writer,
    write_blocks,
)

PARTITIONS = 3


class Done(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


def run(root: Path, *arguments: str | Path) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "busyapi", "archive", "export", "--dir", str(root), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def read_ids(path: Path) -> list[int]:
    return sorted(pyarrow.parquet.read_table(path)["id"].to_pylist())


def plan(root: Path, after: Position) -> Increment:
    partitions = [status.partition for status in find_partitions(root)]
    return plan_increment([partition for partition in partitions if partition], after)


def select_ids(root: Path, increment: Increment) -> list[int]:
    """Return the ids of an increment, as an export reads them."""
    reports: list[str] = []
    ids: list[int] = []
    for status in find_partitions(root):
        assert status.partition
        seqs = increment.seqs[status.number]
        if seqs.last >= seqs.first:
            for lines in select_lines(status.partition, Query(), reports.append, seqs=seqs):
                ids += [json.loads(line)["id"] for line in lines.splitlines()]
    assert reports == []
    return ids


class Archive:
    """An archive whose flushers append, are killed, leave torn blocks and skip ids."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ids: set[int] = set()
        for partition in range(PARTITIONS):
            recover_writer(root, partition, PARTITIONS).close()

    def step(self, partition: int, action: str, count: int) -> None:
        writer = recover_writer(self.root, partition, PARTITIONS)
        first = writer.cursor + 1
        if action == "gap":
            writer.record_gap(Seq(writer.cursor + count), "why")
        else:
            self._append(writer, partition, first, count)
        if action in {"kill", "tear"}:
            abandon_writer(writer)
        else:
            writer.close()
        if action == "tear":
            folder = self.root / f"p{partition:02}"
            (path,) = find_open_segments(folder)
            with path.open("ab") as file:
                file.write(path.read_bytes()[: 40 + count])

    def _append(self, writer: PartitionWriter, partition: int, first: int, count: int) -> None:
        for seq in range(first, first + count):
            writer.append([make_batch(seq)])
            self.ids.add((seq - 1) * PARTITIONS + partition + 1)


STEPS = st.lists(
    st.tuples(
        # Partition 2 often stalls.
        st.sampled_from([0, 0, 1, 1, 2, None]),
        st.sampled_from(["close", "kill", "tear", "gap"]),
        st.integers(1, 4),
    ),
    max_size=14,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_increments_add_up_to_the_archive(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int | None, str, int]]
) -> None:
    archive = Archive(tmp_path_factory.mktemp("archive"))
    exported: list[int] = []
    after: Position = {}
    for partition, action, count in [*steps, (None, "", 0)]:
        if partition is None:
            increment = plan(archive.root, after)
            exported += select_ids(archive.root, increment)
            after = parse_position(format_position(increment.through))
        else:
            archive.step(partition, action, count)
    assert len(exported) == len(set(exported))
    assert set(exported) == archive.ids


def test_partition_that_is_behind_or_idle_holds_no_other_back(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    for partition, counts in ((0, (4, 2)), (1, (3,))):
        write_blocks(root, *counts, partition=partition, partitions=3)
        recover_writer(root, partition, 3).close()
    recover_writer(root, 2, 3).close()
    done = run(root, "--after-id", "0", tmp_path / "a.parquet")
    assert (done.code, done.err) == (0, "")
    assert read_ids(tmp_path / "a.parquet") == [1, 2, 4, 5, 7, 8, 10, 13, 16]
    assert done.out.endswith("continue with --after-id 0:16,1:8\n")
    metadata = pyarrow.parquet.read_schema(tmp_path / "a.parquet").metadata
    assert metadata[b"busyapi.columns"] == b"1"
    assert metadata[b"busyapi.through_id"] == b"0:16,1:8"
    done = run(root, "--after-id", "0:16,1:8", tmp_path / "b.parquet")
    assert "0 usages matched: no usage after 0:16,1:8 is archived yet" in done.err
    assert done.out.endswith("continue with --after-id 0:16,1:8\n")
    for partition in (1, 2):
        writer = recover_writer(root, partition, 3)
        writer.append([make_batch(writer.cursor + 1)])
        writer.close()
    done = run(root, "--after-id", "0:16,1:8", tmp_path / "c.parquet")
    assert read_ids(tmp_path / "c.parquet") == [3, 11]
    assert done.out.endswith("continue with --after-id 0:16,1:11,2:3\n")


@pytest.mark.parametrize(
    ("position", "error"),
    [
        ("7", "'7' is not a position such as 0:22954,1:22950; begin with 0"),
        ("0:1,", "'0:1,' is not a position"),
        ("0:1,0:3", "'0:1,0:3' is not a position"),
        ("0:9223372036854775808", "is not a position"),
        ("0:2", "2 is not an id of partition 0; give what the last export printed"),
        ("0:1,3:4", "--after-id names partition 3, which is not exported"),
    ],
)
def test_position_of_another_archive_is_refused(tmp_path: Path, position: str, error: str) -> None:
    root = tmp_path / "archive"
    for partition in (0, 1):
        write_blocks(root, 3, partition=partition, partitions=2)
        recover_writer(root, partition, 2).close()
    done = run(root, "--after-id", position, tmp_path / "x.parquet")
    assert done.code != 0
    assert error in done.err
    assert not (tmp_path / "x.parquet").exists()


def test_missing_partition_is_refused(tmp_path: Path) -> None:
    write_blocks(tmp_path / "archive", 3, partition=0, partitions=2)
    done = run(tmp_path / "archive", "--after-id", "0", tmp_path / "x.parquet")
    assert done.code == 1
    assert "--after-id needs every partition" in done.err
    assert not (tmp_path / "x.parquet").exists()


def make_options(root: Path, after: Position, patient: str = "") -> Namespace:
    """Return the options of an export in which nothing else is set."""
    names = ("only", "since", "until", "medication", "device_since", "device_until")
    rest = dict.fromkeys(names) | {"patient": [patient] if patient else None}
    return Namespace(dir=root, after_id=after, audit_mode="background", **rest)


def test_partition_that_begins_during_an_export_is_left_to_the_next_one(tmp_path: Path) -> None:
    root, other = tmp_path / "archive", tmp_path / "other"
    write_blocks(root, 2)
    write_blocks(other, 2, partition=1, partitions=2)
    selection = Selection(make_options(root, {}))
    (other / "p01").rename(root / "p01")
    assert {part.partition for part in selection.read_lines("exporting")} == {0}
    assert selection.increment
    assert selection.increment.through == {0: 2}


def test_stride_that_grows_during_an_export_leaves_what_it_cannot_read_to_the_next(
    tmp_path: Path,
) -> None:
    write_blocks(tmp_path, 2)
    (status,) = find_partitions(tmp_path)
    assert status.partition
    writer = recover_writer(tmp_path)
    writer.update_identity(strides=writer.identity.strides.widen(Seq(3), 2))
    writer.append([make_batch(3, 4)])
    increment = plan_increment([status.partition], {})
    writer.close()
    assert increment.through == {0: 2}
    rest = plan(tmp_path, increment.through)
    assert rest.through == {0: 11}
    assert select_ids(tmp_path, increment) + select_ids(tmp_path, rest) == [1, 2, 5, 7, 9, 11]


def test_record_of_an_increment_of_many_partitions_names_its_patient(tmp_path: Path) -> None:
    write_blocks(tmp_path, 1)
    position = {number: 22_960_000 + number for number in range(40)}
    record_export(make_options(tmp_path, position, patient="7"))
    audit = audit_folder(tmp_path, 0)
    (path,) = audit.glob("*.ndjson")
    assert f"?after-id=0:22960000&patient={digest_patient(audit, '7')}" in path.read_text()


def test_damage_gives_no_id_to_continue_with(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    write_blocks(root, 3, 2)
    recover_writer(root).close()
    (path,) = root.rglob("*.zst")
    data = bytearray(path.read_bytes())
    data[80] ^= 1
    path.write_bytes(data)
    done = run(root, "--after-id", "0", tmp_path / "x.parquet")
    assert done.code == 1
    assert "this increment is incomplete" in done.err
    assert "continue with" not in done.out


def test_missing_usages_give_no_id_to_continue_with(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    for _ in range(3):
        write_blocks(root, 3)
        recover_writer(root).close()
    paths = sorted(root.rglob("*.zst"))
    for deleted, missing in ((1, "4 to 6"), (2, "4 to 9"), (0, "1 to 9")):
        paths[deleted].unlink()
        done = run(root, "--after-id", "0", "--replace", tmp_path / "x.parquet")
        assert done.code == 1
        assert f"ids {missing}: in no file" in done.err
        assert "this increment is incomplete" in done.err
        assert "continue with" not in done.out


def test_usages_that_retention_deleted_are_named(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    write_blocks(root, 3)
    recover_writer(root).close()
    writer = recover_writer(root, retention_days=1)
    writer.append([make_batch(4, 2, received_ms=RECEIVED_MS)])
    abandon_writer(writer)
    assert find_open_segment(root)
    change_identity(root / "p00/partition.json", keptFrom=4)
    done = run(root, "--after-id", "0:1", tmp_path / "x.parquet")
    assert "retention has deleted ids 2 to 3 before they were exported" in done.err
    assert read_ids(tmp_path / "x.parquet") == [4, 5]
