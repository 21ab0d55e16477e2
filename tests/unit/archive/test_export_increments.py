"""Increments: `export --after-id` again and again is the archive, each usage once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from busyapi.archive.writer import PartitionWriter
from busyapi.archive_cli.increment import Increment, plan_increment
from busyapi.archive_cli.line_filter import Query
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.query import select_lines
from busyapi.ids import Seq
from testkit.archive.builder import (
    RECEIVED_MS,
    abandon_writer,
    change_identity,
    find_open_segment,
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


def plan(root: Path, after: int) -> Increment:
    partitions = [status.partition for status in find_partitions(root)]
    return plan_increment([partition for partition in partitions if partition], after)


def select_ids(root: Path, increment: Increment) -> list[int]:
    """Return the ids of an increment, as an export reads them."""
    reports: list[str] = []
    ids: list[int] = []
    for status in find_partitions(root):
        assert status.partition
        seqs = increment.select_seqs(status.partition)
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
            (path,) = folder.rglob("*.open")
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
    after = 0
    for partition, action, count in [*steps, (None, "", 0)]:
        if partition is None:
            increment = plan(archive.root, after)
            exported += select_ids(archive.root, increment)
            assert increment.through >= after
            after = increment.through
        else:
            archive.step(partition, action, count)
    # Whatever is left comes when every flusher has caught up.
    highest = max(archive.ids, default=0) + PARTITIONS
    for partition in range(PARTITIONS):
        writer = recover_writer(archive.root, partition, PARTITIONS)
        missing = highest // PARTITIONS + 1 - writer.cursor
        if missing > 0:
            writer.record_gap(Seq(writer.cursor + missing), "caught up")
        writer.close()
    exported += select_ids(archive.root, plan(archive.root, after))
    assert len(exported) == len(set(exported))
    assert set(exported) == archive.ids


def test_stalled_partition_holds_higher_ids_back(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    for partition, counts in ((0, (4, 2)), (1, (3,))):
        write_blocks(root, *counts, partition=partition, partitions=2)
        recover_writer(root, partition, 2).close()
    done = run(root, "--after-id", "0", tmp_path / "a.parquet")
    assert (done.code, done.err) == (0, "")
    assert read_ids(tmp_path / "a.parquet") == [1, 2, 3, 4, 5, 6, 7]
    assert done.out.splitlines()[1:] == [
        (
            "2 usages with a higher id are left to the next increment, because partition 1 is"
            " archived only up to there"
        ),
        "continue with --after-id 7",
    ]
    metadata = pyarrow.parquet.read_schema(tmp_path / "a.parquet").metadata
    assert metadata[b"busyapi.columns"] == b"1"
    assert metadata[b"busyapi.through_id"] == b"7"
    done = run(root, "--after-id", "7", tmp_path / "b.parquet")
    assert "0 usages matched: no usage after id 7 is archived yet" in done.err
    assert done.out.endswith("continue with --after-id 7\n")
    # One partition by itself does not wait for another.
    done = run(root, "--after-id", "7", "--partition", "0", tmp_path / "c.parquet")
    assert read_ids(tmp_path / "c.parquet") == [9, 11]
    assert done.out.endswith("continue with --after-id 11\n")


def test_missing_partition_is_refused(tmp_path: Path) -> None:
    write_blocks(tmp_path / "archive", 3, partition=0, partitions=2)
    done = run(tmp_path / "archive", "--after-id", "0", tmp_path / "x.parquet")
    assert done.code == 1
    assert "--after-id needs every partition" in done.err
    assert not (tmp_path / "x.parquet").exists()


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


def test_usages_that_retention_deleted_are_named(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    write_blocks(root, 3)
    recover_writer(root).close()
    writer = recover_writer(root, retention_days=1)
    writer.append([make_batch(4, 2, received_ms=RECEIVED_MS)])
    abandon_writer(writer)
    assert find_open_segment(root)
    change_identity(root / "p00/partition.json", keptFrom=4)
    done = run(root, "--after-id", "1", tmp_path / "x.parquet")
    assert "retention has deleted usages with an id above 1 and below 4" in done.err
    assert read_ids(tmp_path / "x.parquet") == [4, 5]
