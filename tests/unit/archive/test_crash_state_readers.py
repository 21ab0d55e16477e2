"""If a finished segment and its open source both exist, the finished one counts."""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from busyapi.archive_cli import commands
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.query import find_line
from busyapi.archive_cli.verify import verify_archive
from busyapi.errors import ArchiveDamaged
from busyapi.ids import UsageId
from testkit.archive.builder import (
    find_open_segment,
    find_segments,
    read_blocks,
    recover_writer,
    write_blocks,
)

DIE = "from testkit.archive.builder import recover_writer, Path; recover_writer(Path({root!r}))"


def die_at(root: Path, failpoint: str) -> None:
    """Recover in a process that is killed at a failpoint."""
    result = subprocess.run(
        [sys.executable, "-c", DIE.format(root=str(root))],
        env=os.environ | {"BUSYAPI_FAILPOINTS": f"{failpoint}=kill"},
        check=False,
        timeout=30,
    )
    assert result.returncode == -signal.SIGKILL


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a segment of 1 to 2, and a finished and an open segment of 3 to 8."""
    write_blocks(tmp_path, 2)
    recover_writer(tmp_path).close()
    write_blocks(tmp_path, 3, 2, 1)
    die_at(tmp_path, "archive-recover-before-unlink")
    assert find_open_segment(tmp_path).exists()
    assert len(find_segments(tmp_path)) == 2
    return tmp_path


def run(root: Path, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    commands.add_commands(parser.add_subparsers(), root)
    options = parser.parse_args(["archive", *arguments])
    return int(options.run(options, None))


def break_block(path: Path, number: int) -> None:
    data = bytearray(path.read_bytes())
    data[list(read_blocks(path))[number].offset + 70] ^= 1
    path.write_bytes(data)


def test_nothing_is_repeated_and_each_usage_is_counted_once(root: Path) -> None:
    (report,) = verify_archive(root)
    assert report.problems == []
    assert (report.usages, report.cursor) == (8, 8)


def test_cat_and_export_give_each_usage_once(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(root, "cat") == 0
    out, err = capfd.readouterr()
    assert [json.loads(line)["id"] for line in out.splitlines()] == list(range(1, 9))
    assert err == ""
    assert run(root, "export", str(root / "usages.parquet")) == 0
    assert capfd.readouterr().out.startswith("8 usages")
    assert run(root, "ls") == 0
    assert "copied already" in capfd.readouterr().out


def test_damage_in_the_open_segment_that_no_longer_counts_is_no_damage(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    break_block(find_open_segment(root), 1)
    (report,) = verify_archive(root)
    assert report.problems == []
    assert run(root, "cat") == 0
    assert len(capfd.readouterr().out.splitlines()) == 8
    for id in range(1, 9):  # noqa: A001
        assert find_line(find_partitions(root), UsageId(id))


def test_a_usage_in_a_damaged_finished_segment_is_found_in_the_open_one(
    root: Path,
) -> None:
    break_block(find_segments(root)[1], 1)
    (report,) = verify_archive(root)
    assert {problem.where for problem in report.problems} == {"ids 6 to 7", ""}
    assert find_line(find_partitions(root), UsageId(6))
    find_open_segment(root).unlink()
    with pytest.raises(ArchiveDamaged):
        find_line(find_partitions(root), UsageId(6))


def test_a_part_that_is_copied_and_a_part_that_is_not_are_read_in_order(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A middle block is damaged, and recovery died after the first of two copies."""
    break_block(write_blocks(tmp_path, 3, 2, 4), 1)
    died_after_one_copy = "archive-after-rename"
    die_at(tmp_path, died_after_one_copy)
    assert len(find_segments(tmp_path)) == 1
    (report,) = verify_archive(tmp_path)
    (problem,) = report.problems
    assert (problem.kind, problem.where) == ("damaged", "ids 4 to 5")
    assert report.usages == 7
    assert run(tmp_path, "cat") == 1
    out, err = capfd.readouterr()
    assert [json.loads(line)["id"] for line in out.splitlines()] == [1, 2, 3, 6, 7, 8, 9]
    assert "ids 4 to 5 cannot be read" in err


def delete_file(path: Path) -> None:
    path.unlink()


def duplicate_file(path: Path) -> None:
    day = path.parent.with_name("2020-01-01")
    day.mkdir()
    (day / path.name).write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("damage", "count", "message"),
    [(delete_file, 2, "ids 3 to 8: in no file"), (duplicate_file, 8, "ids 3 to 8: in 20")],
)
def test_cat_and_export_report_what_is_missing_or_in_two_files(
    root: Path,
    capfd: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    count: int,
    message: str,
) -> None:
    find_open_segment(root).unlink()
    damage(find_segments(root)[-1])
    for arguments in (["cat"], ["export", str(root / "usages.parquet")]):
        assert run(root, *arguments) == 1
        out, err = capfd.readouterr()
        assert message in err
        assert len(out.splitlines()) == count or out.startswith(f"{count} usages")


def test_an_archived_usage_that_is_in_no_file_is_damage(root: Path) -> None:
    find_open_segment(root).unlink()
    find_segments(root)[-1].unlink()
    with pytest.raises(ArchiveDamaged, match="id 5 was archived"):
        find_line(find_partitions(root), UsageId(5))
    assert find_line(find_partitions(root), UsageId(9)) is None
