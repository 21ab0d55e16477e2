"""Partitions that are missing are named, by every command that reads an archive."""

import json
import shutil
from pathlib import Path

import pytest

from busyapi.archive_cli import commands
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.snapshot import ArchiveNotFound
from busyapi.archive_cli.verify import verify_archive
from busyapi.errors import ArchiveDamaged
from testkit.archive.builder import change_identity, recover_writer, write_blocks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An archive of three partitions with two usages each."""
    made = tmp_path / "archive"
    for partition in range(3):
        write_blocks(made, 2, partition=partition, partitions=3)
        recover_writer(made, partition, 3).close()
    return made


def wrong(root: Path, only: int | None = None) -> list[tuple[int, str]]:
    """Verify; return the number of each partition with a problem, and the problem's kind."""
    reports = verify_archive(root, only=only)
    return [(report.number, each.kind) for report in reports for each in report.problems]


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("remove", [shutil.rmtree, empty])
@pytest.mark.parametrize("gone", [[0], [1], [2], [0, 1], [1, 2], [0, 2]])
def test_each_partition_that_is_gone_or_empty_is_missing(
    root: Path, remove: object, gone: list[int]
) -> None:
    assert wrong(root) == []
    for number in gone:
        assert callable(remove)
        remove(root / f"p{number:02d}")
    assert wrong(root) == [(number, "missing") for number in gone]


def test_with_all_partitions_gone_there_is_no_archive(root: Path) -> None:
    for number in range(3):
        empty(root / f"p{number:02d}")
    with pytest.raises(ArchiveNotFound):
        find_partitions(root)


def test_a_volume_that_holds_one_partition_is_whole_when_that_one_is_asked_for(
    root: Path,
) -> None:
    for number in (0, 2):
        shutil.rmtree(root / f"p{number:02d}")
    assert wrong(root, only=1) == []
    assert wrong(root, only=2) == [(2, "missing")]
    assert wrong(root, only=3) == [(3, "missing")]


def test_days_without_an_identity_are_damaged_and_so_is_a_mark_without_one(root: Path) -> None:
    (root / "p01/partition.json").unlink()
    assert wrong(root) == [(1, "damaged")]
    for day in root.glob("p01/*-*"):
        shutil.rmtree(day)
    assert wrong(root) == [(1, "damaged")]


def test_an_identity_of_another_partition_or_number_of_them_is_damaged(root: Path) -> None:
    path = root / "p02/partition.json"
    change_identity(path, partition=1)
    assert wrong(root) == [(2, "damaged")]
    change_identity(path, partition=2, partitions=4)
    assert (2, "damaged") in wrong(root)
    assert {number for number, _ in wrong(root)} == {2}


def test_a_copy_under_another_number_of_digits_stands_in_for_nothing(root: Path) -> None:
    (root / "p01").rename(root / "p001")
    assert wrong(root) == [(1, "missing")]


@pytest.mark.parametrize("command", [["cat"], ["export"], ["verify"], ["ls"]])
def test_each_command_reads_what_is_there_and_says_what_is_not(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], command: list[str]
) -> None:
    import argparse  # noqa: PLC0415

    shutil.rmtree(root / "p01")
    (root / "p02/partition.json").write_text("{")
    parser = argparse.ArgumentParser()
    commands.add_commands(parser.add_subparsers(), root)
    more = [str(tmp_path / "usages.parquet")] if command == ["export"] else []
    options = parser.parse_args(["archive", *command, *more])
    code = options.run(options, None)
    out, err = capfd.readouterr()
    assert "partition 1 of 3" in out + err
    assert "p02/partition.json" in out + err
    if command == ["cat"]:
        assert [json.loads(each)["id"] for each in out.splitlines()] == [1, 4]
    if command != ["ls"]:
        assert code == 1
    options = parser.parse_args(["archive", *command, *more, "--partition", "0"])
    assert options.run(options, None) == 0


def test_loss_in_one_partition_can_be_accepted_while_another_is_damaged(root: Path) -> None:
    from busyapi.archive_cli.accept_loss import accept_loss  # noqa: PLC0415
    from busyapi.ids import Seq  # noqa: PLC0415

    (root / "p02/partition.json").write_text("{")
    accept_loss(root, 0, Seq(5), "gone", confirmed=True)
    with pytest.raises(ArchiveDamaged):
        accept_loss(root, 2, Seq(5), "gone", confirmed=True)
    shutil.rmtree(root / "p01")
    with pytest.raises(ArchiveNotFound):
        accept_loss(root, 1, Seq(5), "gone", confirmed=True)
