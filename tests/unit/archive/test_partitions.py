"""Every command that reads an archive names the missing partitions."""

import json
import shutil
from pathlib import Path

import pytest

from busyapi import cli
from busyapi.archive_cli import commands
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.query import find_line
from busyapi.archive_cli.snapshot import ArchiveNotFound
from busyapi.archive_cli.verify import verify_archive
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq, UsageId
from busyapi.strides import Strides
from testkit.archive.builder import change_identity, make_batch, recover_writer, write_blocks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make an archive of three partitions with two usages each."""
    folder = tmp_path / "archive"
    for partition in range(3):
        write_blocks(folder, 2, partition=partition, partitions=3)
        recover_writer(folder, partition, 3).close()
    return folder


def find_problems(root: Path, only: int | None = None) -> list[tuple[int, str]]:
    """Verify and return the partition and the kind of each problem."""
    reports = verify_archive(root, only=only)
    return [(report.number, problem.kind) for report in reports for problem in report.problems]


def empty_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("remove", [shutil.rmtree, empty_folder])
@pytest.mark.parametrize("missing", [[0], [1], [2], [0, 1], [1, 2], [0, 2]])
def test_each_deleted_or_empty_partition_is_missing(
    root: Path, remove: object, missing: list[int]
) -> None:
    assert find_problems(root) == []
    for number in missing:
        assert callable(remove)
        remove(root / f"p{number:02d}")
    assert find_problems(root) == [(number, "missing") for number in missing]


def test_without_any_partition_there_is_no_archive(root: Path) -> None:
    for number in range(3):
        empty_folder(root / f"p{number:02d}")
    with pytest.raises(ArchiveNotFound):
        find_partitions(root)


def test_a_volume_with_one_partition_is_complete_if_only_that_one_is_verified(
    root: Path,
) -> None:
    for number in (0, 2):
        shutil.rmtree(root / f"p{number:02d}")
    assert find_problems(root, only=1) == []
    assert find_problems(root, only=2) == [(2, "missing")]
    with pytest.raises(ArchiveNotFound):
        find_problems(root, only=3)


def test_days_without_an_identity_are_damaged_and_so_is_a_mark_without_one(root: Path) -> None:
    (root / "p01/partition.json").unlink()
    assert find_problems(root) == [(1, "damaged")]
    for day in root.glob("p01/*-*"):
        shutil.rmtree(day)
    assert find_problems(root) == [(1, "damaged")]


def test_an_identity_with_another_partition_or_partition_count_is_damaged(root: Path) -> None:
    path = root / "p02/partition.json"
    change_identity(path, partition=1)
    assert find_problems(root) == [(2, "damaged")]
    change_identity(path, partition=2, partitions=4)
    assert (2, "damaged") in find_problems(root)
    assert {number for number, _ in find_problems(root)} == {2}


def write_restored(root: Path) -> None:
    """Write two partitions of a release that was installed with one.

    Partition 1 began at seq 100. Partition 0 was restored from before that, and widened its stride
    only behind the gap of the restore: by its strides it has issued each id up to 999.
    """
    for partition, strides, last in ((0, "1 1:1 1000:2", 999), (1, "1 100:2", 99)):
        writer = recover_writer(root, partition, 2)
        writer.update_identity(strides=Strides.parse(strides), is_seeded=True)
        if partition == 0:
            writer.append([make_batch(1, 9)])
        writer.record_gap(Seq(last), "restored")
        writer.append([make_batch(last + 1, 3)])
        writer.close()


def test_line_is_found_in_the_child_if_restored_strides_claim_its_id(tmp_path: Path) -> None:
    write_restored(tmp_path)
    statuses = find_partitions(tmp_path)
    lines = [find_line(statuses, UsageId(number)) for number in (9, 200, 204, 1999)]
    assert [json.loads(line)["id"] for line in lines if line] == [9, 200, 204, 1999]
    assert find_line(statuses, UsageId(10)) is None
    shutil.rmtree(tmp_path / "p01")
    with pytest.raises(ArchiveNotFound, match="belongs to partition 1"):
        find_line(find_partitions(tmp_path), UsageId(200))


def test_guess_of_partitions_that_were_never_seeded_does_not_count(tmp_path: Path) -> None:
    write_restored(tmp_path)
    for partition in (2, 3, 4):  # wait for their parents
        recover_writer(tmp_path, partition, 8).close()
    statuses = find_partitions(tmp_path)
    assert [status.problem for status in statuses] == [""] * 5
    line = find_line(statuses, UsageId(204))
    assert line
    assert json.loads(line)["id"] == 204


def test_gap_on_a_new_volume_may_name_a_guess(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path, 0, 8)
    writer.record_gap(Seq(5), "accepted by an operator")
    writer.update_identity(strides=Strides.fixed(1), is_seeded=True)
    writer.close()
    assert find_problems(tmp_path) == []


def test_a_folder_with_another_number_of_digits_does_not_count(root: Path) -> None:
    (root / "p01").rename(root / "p001")
    assert find_problems(root) == [(1, "missing")]


@pytest.mark.parametrize("command", ["cat", "export -", "verify", "ls", "upgrade"])
def test_partition_that_the_archive_does_not_have_is_wrong_usage(
    root: Path, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    shutil.rmtree(root / "p02")
    words = ["archive", *command.split(), "--dir", str(root), "--partition"]
    assert cli.main([*words, "3"]) == 2
    out, err = capfd.readouterr()
    assert (out, err) == (
        "",
        f"busyapi: {root} has no partition 3: its archive has the partitions 0 to 2\n",
    )
    cli.main([*words, "2"])
    assert "partition 2 of 3" in "".join(capfd.readouterr())


def test_id_of_a_partition_without_usages_says_so(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root / "p02")
    assert cli.main(["archive", "cat", "--id", "3", "--dir", str(root)]) == 2
    assert (
        "partition 2, which is not in the folder: none of its usages was" in capfd.readouterr().err
    )


@pytest.mark.parametrize("command", [["cat"], ["export"], ["verify"], ["ls"]])
def test_each_command_reads_the_readable_partitions_and_names_the_others(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], command: list[str]
) -> None:
    import argparse  # noqa: PLC0415

    shutil.rmtree(root / "p01")
    (root / "p02/partition.json").write_text("{")
    parser = argparse.ArgumentParser()
    commands.add_commands(parser.add_subparsers(), root)
    more = ["--replace", str(tmp_path / "usages.parquet")] if command == ["export"] else []
    options = parser.parse_args(["archive", *command, *more])
    code = options.run(options, None)
    out, err = capfd.readouterr()
    assert "partition 1 of 3" in out + err
    assert "p02/partition.json" in out + err
    if command == ["cat"]:
        assert [json.loads(line)["id"] for line in out.splitlines()] == [1, 4]
    if command != ["ls"]:
        assert code == 1
    options = parser.parse_args(["archive", *command, *more, "--partition", "0"])
    assert options.run(options, None) == 0


def test_loss_in_one_partition_can_be_accepted_while_another_is_damaged(root: Path) -> None:
    from busyapi.archive_cli.accept_loss import accept_loss  # noqa: PLC0415
    from busyapi.ids import Seq  # noqa: PLC0415

    (root / "p02/partition.json").write_text("{")
    accept_loss(root, 0, Seq(5), "disk lost", confirmed=True)
    with pytest.raises(ArchiveDamaged):
        accept_loss(root, 2, Seq(5), "disk lost", confirmed=True)
    shutil.rmtree(root / "p01")
    with pytest.raises(ArchiveNotFound):
        accept_loss(root, 1, Seq(5), "disk lost", confirmed=True)
