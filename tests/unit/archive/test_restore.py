"""`busyapi archive confirm-restore`: the operator names the last id."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from busyapi.archive.holders import Holders, read_holders, write_holders
from busyapi.archive_cli import commands
from busyapi.archive_cli.verify import verify_archive
from busyapi.cli import main
from busyapi.ids import Seq
from testkit.archive.builder import make_batch, recover_writer
from testkit.terminal import Terminal


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy an archive of four partitions that hold 3, 6, 9 and no usages."""
    original = tmp_path / "original"
    for number in range(4):
        writer = recover_writer(original, number, 4)
        if number < 3:
            usages = make_batch(1, 3 * (number + 1))
            writer.append([usages])
        writer.close()
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    monkeypatch.setenv("BUSYAPI_ARCHIVE_DIR", str(copy))
    return copy


def run_restored(*arguments: str) -> int:
    return main(["archive", "confirm-restore", *arguments])


def read_state(root: Path) -> list[tuple[int, bool]]:
    """Return each partition's cursor, and whether it still counts as a copy."""
    states = []
    for number in range(4):
        writer = recover_writer(root, number, 4)
        states.append((int(writer.cursor), writer.identity.is_copy))
        writer.close()
    return states


BEFORE = [(3, True), (6, True), (9, True), (0, True)]


def test_every_partition_is_recorded_up_to_the_last_seq_with_no_higher_id(root: Path) -> None:
    # Ids 37, 38, 39 and 40 are seq 10 of the four; 38 is of partition 1.
    assert run_restored("--last-id", "38", "--yes") == 0
    assert read_state(root) == [(10, False), (10, False), (9, False), (9, False)]
    assert [report.problems for report in verify_archive(root)] == [[]] * 4
    (gap,) = root.glob("p01/*/gap-*")
    record = json.loads(gap.read_text())
    assert (record["from"], record["to"]) == (7, 10)
    assert "last id 38" in record["why"]


def test_one_partition_alone_may_be_recorded(root: Path) -> None:
    assert run_restored("--partition", "1", "--last-id", "38", "--yes") == 0
    assert read_state(root) == [(3, True), (10, False), (9, True), (0, True)]
    assert run_restored("--partition", "0", "--partition", "3", "--last-id", "38", "--yes") == 0
    assert read_state(root) == [(10, False), (10, False), (9, True), (9, False)]


@pytest.mark.parametrize("last_id", [1, 12, 34])
def test_an_id_below_the_last_one_of_a_partition_is_refused_and_nothing_recorded(
    root: Path, capsys: pytest.CaptureFixture[str], last_id: int
) -> None:
    assert run_restored("--last-id", str(last_id), "--yes") == 1
    message = capsys.readouterr().err
    assert f"so {last_id} was not the last id" in message
    assert "already holds id" in message
    assert read_state(root) == BEFORE
    assert not list(root.rglob("gap-*"))


def test_the_last_id_of_the_backup_records_no_loss(root: Path) -> None:
    # Seq 9 of partition 2: the copy was made after the last usage.
    assert run_restored("--partition", "2", "--last-id", "35", "--yes") == 0
    assert read_state(root)[2] == (9, False)
    assert not list(root.rglob("gap-*"))


def test_a_partition_without_usages_is_marked_as_seeded(root: Path) -> None:
    """A backup made before the first usage: an empty Redis must not look like a fresh install."""
    assert run_restored("--partition", "3", "--last-id", "2", "--yes") == 0
    writer = recover_writer(root, 3, 4)
    assert (writer.cursor, writer.identity.is_copy, writer.identity.is_seeded) == (0, False, True)
    writer.close()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--last-id", "0"], 2),
        (["--last-id", "x"], 2),
        (["--last-id", str(2**53 + 1)], 2),
        (["--partition", "7", "--last-id", "50"], 2),
        (["--last-id", "50", "--dir", "/nowhere"], 2),
        ([], 2),
    ],
)
def test_invalid_arguments_are_refused(root: Path, arguments: list[str], code: int) -> None:
    try:
        exit_code = run_restored(*arguments, "--yes")
    except SystemExit as stop:
        exit_code = int(stop.code or 0)
    assert exit_code == code
    assert read_state(root) == BEFORE


def test_a_flusher_that_holds_a_partition_keeps_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = recover_writer(root, 2, 4)
    assert run_restored("--last-id", "50", "--yes") == 1
    assert "stop its flusher" in capsys.readouterr().err
    writer.close()
    assert read_state(root) == BEFORE, "the others were released unchanged"


@pytest.mark.parametrize(("typed", "code"), [("50\n", 0), ("49\n", 1), ("\n", 1), ("", 1)])
def test_the_command_asks_for_the_id_and_accepts_nothing_else(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    code: int,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert run_restored("--last-id", "50") == code
    output = capsys.readouterr().out
    assert "partition 1 (a copy) ends at seq 6, id 22" in output
    assert "will be recorded as lost: seqs 7 to 13, ids 26 to 50 in steps of 4" in output
    assert (read_state(root) == BEFORE) is (code != 0)


def test_without_a_terminal_the_command_asks_for_yes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("50\n"))
    assert run_restored("--last-id", "50") == commands.EXIT_FAILED
    assert read_state(root) == BEFORE


def test_a_second_run_after_an_interrupt_records_the_rest(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from busyapi.archive.writer import PartitionWriter  # noqa: PLC0415

    calls: list[int] = []
    adopt_copy = PartitionWriter.adopt_copy

    def adopt_one(writer: PartitionWriter) -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        adopt_copy(writer)

    with monkeypatch.context() as patched:
        patched.setattr(PartitionWriter, "adopt_copy", adopt_one)
        assert run_restored("--last-id", "50", "--yes") == 130
    assert read_state(root) == [(13, False), (13, True), (9, True), (0, True)]
    assert run_restored("--last-id", "50", "--yes") == 0
    assert [copy for _, copy in read_state(root)] == [False] * 4


def test_a_snapshot_that_is_not_recognized_as_a_copy_is_recorded_too(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, 3)])
    writer.close()
    assert (
        main(["archive", "confirm-restore", "--dir", str(tmp_path), "--last-id", "9", "--yes"]) == 0
    )
    writer = recover_writer(tmp_path)
    assert (writer.cursor, writer.stats.skipped_seqs) == (9, 6)
    assert writer.find_line(Seq(3)) is not None
    writer.close()


def test_restored_archive_forgets_which_servers_held_every_usage(root: Path) -> None:
    write_holders(root / "p00", Holders({"10.0.0.1:6379": "process"}))
    assert run_restored("--last-id", "38", "--yes") == 0
    assert read_holders(root / "p00") == Holders()
