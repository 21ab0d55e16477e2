"""`busyapi archive upgrade` and `downgrade`: every usage stays, whenever the process dies."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from busyapi import cli
from busyapi.archive import convert, paths
from busyapi.archive.identity import read_identity
from busyapi.archive.segment import Segment
from busyapi.archive_cli.verify import verify_archive
from busyapi.ids import Seq
from testkit.archive.builder import (
    FRAME_MAGIC,
    abandon_writer,
    change_identity,
    find_segments,
    list_file_names,
    make_batch,
    read_ids,
    recover_writer,
    refuse_flock,
)

SEGMENTS = 6
LAST = 2 * SEGMENTS + 1
"""The last id: a segment has two usages, and the open segment one."""
pytestmark = pytest.mark.formats(1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write segments of two blocks in format 1, an open one, and kill the writer."""
    folder = tmp_path / "archive"
    writer = recover_writer(folder, segment_bytes=1)
    for _ in range(SEGMENTS):
        writer.append([make_batch(writer.cursor + 1)])
        writer.append([make_batch(writer.cursor + 1)])
        writer.roll_if_due()
    writer.append([make_batch(LAST)])
    abandon_writer(writer)
    return folder


def run_archive(root: Path, command: str) -> int:
    return cli.main(["archive", command, "--dir", str(root)])


def list_formats(root: Path) -> list[int]:
    """Return the format of each finished segment."""
    return [2 if path.read_bytes().startswith(FRAME_MAGIC) else 1 for path in find_segments(root)]


def read_format(root: Path) -> int:
    """Return the format that partition.json states."""
    number: int = json.loads((root / "p00/partition.json").read_text())["format"]
    return number


def list_indexes(root: Path) -> list[Path]:
    return sorted(root.rglob("_usages-*.index"))


def check(root: Path) -> None:
    """Check that every usage is there once."""
    (report,) = verify_archive(root)
    assert (report.problems, report.usages) == ([], LAST)
    assert read_ids(root) == list(range(1, LAST + 1))


def test_an_archive_is_upgraded_and_downgraded_to_the_same_bytes(root: Path) -> None:
    recover_writer(root).close()
    before = {path.name: path.read_bytes() for path in find_segments(root)}
    for _ in range(2):
        assert run_archive(root, "upgrade") == 0
        assert (read_format(root), set(list_formats(root))) == (2, {2})
        assert len(list_indexes(root)) == SEGMENTS + 1
        check(root)
    for _ in range(2):
        assert run_archive(root, "downgrade") == 0
        assert (read_format(root), list_indexes(root)) == (1, [])
        check(root)
    assert {path.name: path.read_bytes() for path in find_segments(root)} == before
    assert not list(root.rglob("*.tmp"))


def test_a_flusher_of_this_version_continues_an_old_archive_in_the_new_format(root: Path) -> None:
    writer = recover_writer(root, format=2)
    assert writer.cursor == LAST
    writer.append([make_batch(LAST + 1)])
    writer.close()
    assert list_formats(root) == [1] * SEGMENTS + [2, 2]
    assert read_format(root) == 2
    assert read_ids(root) == list(range(1, LAST + 2))
    writer = recover_writer(root)
    assert writer.identity.format == 2, "the format never goes back by itself"
    assert [writer.find_line(Seq(seq)) is not None for seq in (1, LAST)] == [True, True]
    writer.close()


def test_an_archive_that_shall_stay_of_format_1_stays_so(root: Path) -> None:
    writer = recover_writer(root, format=1)
    writer.append([make_batch(LAST + 1)])
    writer.close()
    assert (set(list_formats(root)), read_format(root), list_indexes(root)) == ({1}, 1, [])


def test_while_a_flusher_writes_its_newest_segments_are_left(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = recover_writer(root, format=1)
    assert run_archive(root, "upgrade") == 1
    assert "set BUSYAPI_ARCHIVE_FORMAT=2" in capsys.readouterr().err
    writer.close()
    writer = recover_writer(root, format=2)
    assert writer.find_line(Seq(1)), "the lookup now knows the old file's footer"
    assert run_archive(root, "upgrade") == 0
    assert "the newest 3 left, because a flusher may run" in capsys.readouterr().out
    assert list_formats(root) == [2, 2, 2, 2, 1, 1, 1]
    for seq in range(1, LAST + 1):
        assert writer.find_line(Seq(seq))
    assert writer.damage_reports == []
    assert run_archive(root, "downgrade") == 1
    assert "stop its flusher" in capsys.readouterr().err
    writer.close()
    check(root)


def test_without_flock_a_flusher_may_be_running(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse_flock)
    before = list_file_names(root)
    assert run_archive(root, "upgrade") == 1
    assert "without flock: set BUSYAPI_ARCHIVE_FORMAT=2" in capsys.readouterr().err
    assert list_file_names(root) == before
    writer = recover_writer(root, format=2)
    assert run_archive(root, "upgrade") == 0
    assert list_formats(root) == [2, 2, 2, 2, 1, 1, 2]
    assert run_archive(root, "downgrade") == 1
    assert "without flock: stop its flusher" in capsys.readouterr().err
    writer.append([make_batch(LAST + 1)])
    writer.close()
    assert read_ids(root) == list(range(1, LAST + 2))


def test_without_flock_a_conversion_never_renames_the_copy_of_another(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recover_writer(root, format=2).close()
    monkeypatch.setattr(fcntl, "flock", refuse_flock)
    others: list[Segment] = []

    def begin_another_copy(name: str) -> None:
        if name == "archive-before-rename" and not others:
            convert.delete_copies(root / "p00")
            identity, day = read_identity(root / "p00"), find_segments(root)[0].parent.name
            assert identity
            others.append(Segment(root / "p00", identity, day, Seq(1), convert._make_suffix()))

    monkeypatch.setattr("busyapi.archive.fsync.failpoint", begin_another_copy)
    assert run_archive(root, "upgrade") == 1
    assert "it stays as it is" in capsys.readouterr().err
    check(root)
    others[0].close()
    assert run_archive(root, "upgrade") == 0
    check(root)


def test_an_archive_with_two_strides_is_upgraded_and_not_downgraded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = recover_writer(tmp_path, 0, 2, bound=10)
    writer.append([make_batch(1, 2)])
    writer.update_identity(strides=writer.identity.strides.widen(Seq(3), 4), is_seeded=True)
    writer.append([make_batch(3, 2)])
    writer.close()
    assert list_formats(tmp_path) == [1, 2], "0.2.0 cannot read it any more"
    before = [path.read_bytes() for path in find_segments(tmp_path)]
    assert cli.main(["archive", "upgrade", "--dir", str(tmp_path), "--partition", "0"]) == 0
    assert list_formats(tmp_path) == [2, 2]
    for path in list_indexes(tmp_path):
        path.unlink()
    writer = recover_writer(tmp_path, 0, 4, bound=10)
    lines = [json.loads(writer.find_line(Seq(seq)) or b"{}")["id"] for seq in range(1, 5)]
    assert (lines, writer.damage_reports) == ([1, 3, 9, 13], [])
    writer.close()
    assert len(list_indexes(tmp_path)) == 2
    assert cli.main(["archive", "downgrade", "--dir", str(tmp_path), "--partition", "0"]) == 1
    assert "number of partitions has changed" in capsys.readouterr().err
    assert [path.read_bytes() for path in find_segments(tmp_path)][1:] == before[1:]


def test_an_archive_on_another_server_than_partition_0_is_of_a_format_that_0_2_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = recover_writer(tmp_path, 0, 2, bound=10)
    assert writer.identity.format == 1
    writer.update_identity(prefix="busyapi", server=2, is_seeded=True)
    writer.append([make_batch(1, 2)])
    writer.close()
    assert (list_formats(tmp_path), writer.identity.format) == ([2], 2)
    assert cli.main(["archive", "downgrade", "--dir", str(tmp_path), "--partition", "0"]) == 1
    assert "on another Redis server than partition 0" in capsys.readouterr().err
    assert list_formats(tmp_path) == [2]


def test_no_partition_is_downgraded_if_one_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for partition in (0, 1):
        writer = recover_writer(tmp_path, partition, 2, format=2)
        writer.update_identity(prefix="busyapi", server=partition, is_seeded=True)
        writer.append([make_batch(1, 2)])
        writer.close()
    before = list_formats(tmp_path)
    assert run_archive(tmp_path, "downgrade") == 1
    assert "partition 1 is on another Redis server" in capsys.readouterr().err
    assert list_formats(tmp_path) == before


def test_a_damaged_segment_stays_as_it_is(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = find_segments(root)[1]
    data = bytearray(path.read_bytes())
    data[80] ^= 1
    path.write_bytes(data)
    assert run_archive(root, "upgrade") == 1
    assert f"{path.name} is damaged: it stays" in capsys.readouterr().err
    assert path.read_bytes() == data
    assert list_formats(root) == [2, 1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("damage", ["missing", "damaged", "of another segment"])
def test_an_index_is_made_again(root: Path, damage: str) -> None:
    run_archive(root, "upgrade")
    indexes = list_indexes(root)
    contents = [path.read_bytes() for path in indexes]
    if damage == "missing":
        indexes[0].unlink()
    else:
        indexes[0].write_bytes(contents[1] if damage == "of another segment" else b"x")
        (report,) = verify_archive(root)
        assert [problem.kind for problem in report.problems] == ["damaged"]
    writer = recover_writer(root)
    assert writer.find_line(Seq(1)), "a lookup does without an index"
    writer.close()
    assert run_archive(root, "upgrade") == 0
    assert [path.read_bytes() for path in indexes] == contents
    check(root)


def test_a_segment_that_retention_deletes_meanwhile_stays_deleted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, finish = find_segments(root)[0], Segment.finish

    def delete_and_finish(segment: Segment) -> paths.ArchiveFile:
        if segment.first == 1:
            change_identity(root / "p00/partition.json", keptFrom=3)
            path.unlink()
        return finish(segment)

    recover_writer(root, format=2).close()
    monkeypatch.setattr(Segment, "finish", delete_and_finish)
    assert run_archive(root, "upgrade") == 0
    assert not path.exists()
    (report,) = verify_archive(root)
    assert report.problems == []


def test_a_flusher_that_starts_meanwhile_ends_the_conversion(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its recovery removes the temporary file."""

    def recover(_name: str) -> None:
        for path in root.rglob("*.tmp"):
            path.unlink()

    recover_writer(root, format=2).close()
    monkeypatch.setattr(convert, "failpoint", recover)
    assert run_archive(root, "upgrade") == 1
    assert "it stays as it is" in capsys.readouterr().err
    check(root)


def test_a_flusher_that_starts_while_an_index_is_completed_is_reported(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its recovery removes the temporary index."""

    def recover(_name: str) -> None:
        for path in root.rglob("*.index.tmp"):
            path.unlink()

    assert run_archive(root, "upgrade") == 0
    list_indexes(root)[0].unlink()
    monkeypatch.setattr("busyapi.archive.fsync.failpoint", recover)
    assert run_archive(root, "upgrade") == 1
    assert "it stays as it is" in capsys.readouterr().err
    check(root)


STEPS = ["archive-convert-copied", "archive-write-index", "archive-after-index"]
STEPS += ["archive-before-rename", "archive-after-rename", "archive-write", "archive-sync"]


def kill_at(root: Path, command: str, step: str, hit: int) -> bool:
    """Run a command that is killed at the n-th hit of a step; return whether it was."""
    result = subprocess.run(
        [sys.executable, "-m", "busyapi", "archive", command, "--dir", str(root)],
        env={**os.environ, "BUSYAPI_FAILPOINTS": f"{step}=kill@{hit}"},
        check=False,
        capture_output=True,
        timeout=60,
    )
    return result.returncode == -signal.SIGKILL


@pytest.mark.parametrize("hit", [1, 3])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("command", ["upgrade", "downgrade"])
def test_a_conversion_that_is_killed_loses_nothing_and_is_continued(
    root: Path, fast_path: Path, command: str, step: str, hit: int
) -> None:
    copy = fast_path / "archive"
    recover_writer(root).close()
    if command == "downgrade":
        assert run_archive(root, "upgrade") == 0
        if "index" in step:
            pytest.skip("format 1 has no index")
    shutil.copytree(root, copy)
    assert kill_at(copy, command, step, hit)
    check(copy)
    assert run_archive(copy, command) == 0
    check(copy)
    target = 2 if command == "upgrade" else 1
    assert (set(list_formats(copy)), read_format(copy)) == ({target}, target)
    assert not list(copy.rglob("*.tmp"))
    writer = recover_writer(copy, format=target)
    assert (writer.cursor, writer.damage_reports) == (LAST, [])
    writer.close()


def test_conversions_use_all_steps(root: Path) -> None:
    """This is the control: a step that is not reached kills no process."""
    assert not kill_at(root, "upgrade", "archive-recover-unlinked", 2)
    check(root)
