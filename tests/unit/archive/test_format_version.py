"""Files of a later format version: every program that reads one stops and changes nothing."""

import json
import zlib
from pathlib import Path

import pytest

from busyapi import cli
from busyapi.archive_cli.verify import verify_archive
from busyapi.errors import UnknownVersion
from busyapi.ids import Seq
from testkit.archive.builder import (
    abandon_writer,
    find_open_segment,
    find_segments,
    make_batch,
    recover_writer,
    write_blocks,
)

pytestmark = pytest.mark.formats(1)
"""Segments of format 2 have no version: partition.json has it."""
MAGIC, NEWER = b"busyapi\x01", b"busyapi\x03"
HEADER = 68


def finish(root: Path) -> Path:
    writer = recover_writer(root)
    writer.append([make_batch(1, 3)])
    writer.append([make_batch(4, 3)])
    writer.close()
    (path,) = find_segments(root)
    return path


def make_newer(path: Path) -> None:
    """Turn a file into one that a later version might write."""
    content = path.read_bytes()
    assert MAGIC in content
    path.write_bytes(content.replace(MAGIC, NEWER))


def read_segments(root: Path) -> dict[str, bytes]:
    """Return the segments. A start may change the lock and some other files."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if (path.is_file() and path.suffix == ".zst") or ".open" in path.name
    }


@pytest.mark.parametrize("state", ["finished", "open"])
def test_segment_of_a_later_version_stops_recovery_and_stays_as_it_is(
    tmp_path: Path, state: str
) -> None:
    path = finish(tmp_path) if state == "finished" else write_blocks(tmp_path, 3, 3)
    make_newer(path)
    before = read_segments(tmp_path)
    for _ in range(2):
        with pytest.raises(
            UnknownVersion, match=r"is of format 3, and busyapi .* reads formats 1 to 2"
        ):
            recover_writer(tmp_path)
    assert read_segments(tmp_path) == before
    # The lock was released, so that the right version can begin.
    content = path.read_bytes()
    path.write_bytes(content.replace(NEWER, MAGIC))
    writer = recover_writer(tmp_path)
    assert writer.cursor == 6
    assert writer.damage_reports == []
    writer.close()


@pytest.mark.parametrize("at", [15, -1], ids=["begin", "end"])
def test_rot_in_the_byte_of_the_version_is_damage_and_not_a_version(
    tmp_path: Path, at: int
) -> None:
    path = finish(tmp_path)
    content = bytearray(path.read_bytes())
    content[at] ^= 0x02
    path.write_bytes(content)
    writer = recover_writer(tmp_path)
    assert len(writer.damage_reports) == 1
    abandon_writer(writer)


def test_rot_in_the_version_of_an_open_segment_of_one_block_is_damage(tmp_path: Path) -> None:
    path = write_blocks(tmp_path, 3)
    content = bytearray(path.read_bytes())
    content[15] ^= 0x02
    path.write_bytes(content)
    abandon_writer(recover_writer(tmp_path))
    assert not path.exists()


def test_lookup_in_a_segment_of_a_later_version_fails_and_reports_no_damage(
    tmp_path: Path,
) -> None:
    path = finish(tmp_path)
    writer = recover_writer(tmp_path)
    make_newer(path)
    with pytest.raises(UnknownVersion):
        writer.find_line(Seq(2))
    assert writer.damage_reports == []
    writer.close()


def test_identity_and_records_of_a_later_version_are_not_called_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = recover_writer(tmp_path)
    writer.record_gap(Seq(5), "a test says so")
    writer.close()
    (gap,) = tmp_path.rglob("gap-*.json")
    for path in (gap, tmp_path / "p00" / "partition.json"):
        members = json.loads(path.read_bytes())
        path.write_text(json.dumps(members | {"format": 3, "new": [1]}))
        if path != gap:
            with pytest.raises(UnknownVersion, match="format 3"):
                recover_writer(tmp_path)
        assert cli.main(["archive", "verify", "--dir", str(tmp_path)]) == 1
        assert "is of format 3" in "".join(capsys.readouterr())
        path.write_text(json.dumps(members))
    assert cli.main(["archive", "verify", "--dir", str(tmp_path)]) == 0


@pytest.mark.parametrize("command", ["verify", "cat"])
def test_commands_report_a_segment_of_a_later_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    make_newer(finish(tmp_path))
    assert cli.main(["archive", command, "--dir", str(tmp_path)]) == 1
    assert "is of format 3, and busyapi" in "".join(capsys.readouterr())


@pytest.mark.parametrize("state", ["finished", "open"])
def test_verify_reports_a_file_of_a_later_version_and_checks_the_others(
    tmp_path: Path, state: str
) -> None:
    path = finish(tmp_path)
    if state == "open":
        path = write_blocks(tmp_path, 2, 2)
    make_newer(path)
    (report,) = verify_archive(tmp_path)
    ids = "ids 1 to 6" if state == "finished" else "ids 7 to 10"
    assert [(problem.kind, problem.where) for problem in report.problems] == [("unknown", ids)]
    assert report.usages == (0 if state == "finished" else 6)


def test_header_of_another_length_is_recognized_by_its_magic(tmp_path: Path) -> None:
    path = write_blocks(tmp_path, 3)
    content = path.read_bytes()
    longer = b"\x50" + content[1:8] + NEWER + bytes(20) + content[16:HEADER]
    path.write_bytes(longer + zlib.compress(b"another packing"))
    with pytest.raises(UnknownVersion):
        recover_writer(tmp_path)
    assert find_open_segment(tmp_path).read_bytes()[:68] == longer[:68]
