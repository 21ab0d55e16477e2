"""Damage at the end of the open segment: published data is kept and reported, other data is not."""

import json
import re
import time
import zlib
from pathlib import Path

import pytest

from busyapi import archive
from busyapi.archive import folder, high_water, identity, paths
from busyapi.archive.compression import compress
from busyapi.archive_cli.verify import verify_archive
from busyapi.errors import ArchiveDamaged, LossSuspected
from busyapi.ids import Seq
from testkit.archive.builder import (
    abandon_writer,
    find_open_segment,
    find_open_segments,
    make_batch,
    read_blocks,
    read_ids,
    recover_writer,
    render_batches,
    set_high_water,
    write_blocks,
)

LAST = range(4, 7)
"""The seqs of the last block."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make an open segment of two blocks, 1 to 3 and 4 to 6, and kill its writer."""
    write_blocks(tmp_path, 3, 3)
    return tmp_path


def read_set_aside(root: Path) -> dict[str, bytes]:
    """Return the contents of the files set aside, by suffix."""
    set_aside = [*root.rglob("*.damaged*"), *root.rglob("*.torn*")]
    return {path.name.rpartition(".")[2]: path.read_bytes() for path in set_aside}


def change_last_block(root: Path, at: int) -> bytes:
    """Change one bit of the last block, `at` bytes into it, and return the changed file."""
    path = find_open_segment(root)
    data = bytearray(path.read_bytes())
    data[list(read_blocks(path))[-1].offset + at] ^= 1
    path.write_bytes(data)
    return bytes(data)


def list_problems(root: Path) -> list[tuple[str, str]]:
    """Verify, and return each problem's kind and ids."""
    reports = verify_archive(root)
    return [(problem.kind, problem.where) for report in reports for problem in report.problems]


@pytest.mark.formats(1, 2)
@pytest.mark.parametrize("at", [0, 8, 24, 60, 70, -1])
def test_a_published_last_block_that_has_changed_is_set_aside_and_halts(
    root: Path, at: int
) -> None:
    data = change_last_block(
        root,
        at if at >= 0 else len(find_open_segment(root).read_bytes()) - 1 - find_last_block(root),
    )
    assert list_problems(root) == [("damaged", "ids 4 to 6")]
    writer = recover_writer(root)
    assert (writer.cursor, writer.stats.highest_seq, len(writer.damage_reports)) == (3, 6, 1)
    assert read_set_aside(root) == {"damaged": data}
    with pytest.raises(LossSuspected):
        writer.append([make_batch(4)])
    abandon_writer(writer)
    assert list_problems(root) == [("missing", "ids 4 to 6")]
    writer = recover_writer(root)
    assert (writer.cursor, writer.stats.highest_seq, writer.damage_reports) == (3, 6, [])
    writer.record_gap(Seq(6), "accepted")
    writer.close()
    assert list_problems(root) == []
    assert read_set_aside(root) == {"damaged": data}


def find_last_block(root: Path) -> int:
    """Return where the last block begins."""
    return list(read_blocks(find_open_segment(root)))[-1].offset


@pytest.mark.formats(1, 2)
@pytest.mark.parametrize("cut", ["within the last block", "at its begin"])
def test_a_published_last_block_that_was_cut_off_halts(root: Path, cut: str) -> None:
    path, start = find_open_segment(root), find_last_block(root)
    path.write_bytes(path.read_bytes()[: start + (80 if cut.startswith("within") else 0)])
    kind = "damaged" if cut.startswith("within") else "missing"
    assert list_problems(root) == [(kind, "ids 4 to 6")]
    writer = recover_writer(root)
    assert (writer.cursor, writer.stats.highest_seq) == (3, 6)
    assert len(read_set_aside(root)) == len(writer.damage_reports) == (kind == "damaged")
    abandon_writer(writer)


@pytest.mark.formats(1)
@pytest.mark.parametrize("mark", [3, None])
def test_a_last_block_that_was_not_published_is_kept_in_doubt_without_a_damage_report(
    root: Path, mark: int | None
) -> None:
    data = change_last_block(root, 70)
    set_high_water(root, mark)
    assert list_problems(root) == []
    writer = recover_writer(root)
    assert (
        writer.cursor,
        writer.stats.highest_seq,
        writer.damage_reports,
        writer.stats.damaged_files,
    ) == (
        3,
        3,
        [],
        0,
    )
    assert read_set_aside(root) == {"torn": data}
    assert read_ids(root) == [1, 2, 3]
    (report,) = verify_archive(root)
    assert not report.problems
    assert "doubtful" in report.notes[0]
    writer.append([make_batch(4, 2)])
    abandon_writer(writer)
    recover_writer(root).close()
    assert read_set_aside(root) == {"torn": data}, "seq 6 may be nowhere else"
    write_blocks(root, 1)
    recover_writer(root).close()
    assert read_set_aside(root) == {}, "all of it has been archived from Redis"


def test_a_block_in_doubt_does_not_stop_retention_on_a_full_volume(tmp_path: Path) -> None:
    """Its seqs are beyond the cursor, as those of a file beyond a hole, but none is missing."""
    now = round(time.time() * 1000)
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, 3, now - 10 * 86_400_000)])
    writer.close()
    (day,) = tmp_path.glob("p00/*-*")
    day.rename(day.with_name("2020-01-01"))
    writer = recover_writer(tmp_path)
    writer.append([make_batch(4, 1, now)])
    writer.append([make_batch(5, 4, now)])
    abandon_writer(writer)
    change_last_block(tmp_path, 70)
    set_high_water(tmp_path, 4)
    recover_writer(tmp_path).close()
    assert list(read_set_aside(tmp_path)) == ["torn"]
    partition_identity = identity.read_identity(tmp_path / "p00")
    assert partition_identity
    assert folder._delete_expired(tmp_path / "p00", partition_identity, 1, []).kept_from == 4


@pytest.mark.formats(1, 2)
def test_a_gap_over_a_block_in_doubt_keeps_it(root: Path) -> None:
    """Redis has lost its data: the kept block may be the only copy."""
    data = change_last_block(root, 70)
    set_high_water(root, 3)
    writer = recover_writer(root)
    writer.record_gap(Seq(6), "Redis has lost its data")
    writer.append([make_batch(7)])
    writer.close()
    recover_writer(root).close()
    assert read_set_aside(root) == {"torn": data}


@pytest.mark.formats(1, 2)
def test_a_block_in_doubt_without_a_header_is_kept_while_it_may_be_the_only_copy(
    root: Path,
) -> None:
    """Its seqs are not known, but no more than the bound can follow the cursor."""
    data = change_last_block(root, 24)
    set_high_water(root, 3)
    writer = recover_writer(root)
    writer.append([make_batch(4, 999)])
    writer.close()
    recover_writer(root).close()
    assert read_set_aside(root) == {"torn": data}
    write_blocks(root, 1)
    recover_writer(root).close()
    assert read_set_aside(root) == {}


@pytest.mark.formats(1, 2)
def test_a_writer_killed_repeatedly_leaves_nothing_set_aside(
    root: Path, archive_format: int
) -> None:
    for n in range(6):
        path = find_open_segment(root)
        whole = path.read_bytes()
        block = whole[: next(read_blocks(path)).end]
        if archive_format > 1:
            block = compress(render_batches([make_batch(7 + n, 3)], 0, 1))
        path.write_bytes(whole + block[: [1, 15, 16, 67, 68, len(block) - 1][n]])
        writer = recover_writer(root)
        assert (writer.damage_reports, writer.stats.damaged_files) == ([], 0)
        assert writer.stats.highest_seq == writer.cursor == 6 + n
        writer.append([make_batch(writer.cursor + 1)])
        abandon_writer(writer)
    assert read_set_aside(root) == {}


@pytest.mark.formats(1)
def test_zeros_and_a_footer_cut_short_are_torn(root: Path) -> None:
    """A power cut kept only the file's size; a kill came while the segment was finished."""
    whole = find_open_segment(root).read_bytes()
    writer = recover_writer(root)
    footer = next(root.rglob("*.zst")).read_bytes()[len(whole) :]
    writer.append([make_batch(7)])
    abandon_writer(writer)
    path = find_open_segment(root)
    path.write_bytes(path.read_bytes() + bytes(5000))
    writer = recover_writer(root)
    assert writer.cursor == 7
    writer.append([make_batch(8)])
    writer.append([make_batch(9)])
    abandon_writer(writer)
    find_open_segment(root).write_bytes(find_open_segment(root).read_bytes() + footer[:50])
    writer = recover_writer(root)
    assert (writer.cursor, writer.damage_reports) == (9, [])
    writer.close()
    assert read_set_aside(root) == {}


def test_a_frame_that_lacks_pages_is_kept_in_doubt(root: Path) -> None:
    """A power cut kept a part of the last frame, and zeros where the rest was."""
    path = find_open_segment(root)
    whole = path.read_bytes()
    frame = compress(render_batches([make_batch(7, 3)], 0, 1))
    for at in range(4, len(frame) - 1):
        path = find_open_segment(root)
        whole = path.read_bytes()
        path.write_bytes(whole + frame[:at] + bytes(len(frame) - at))
        set_high_water(root, 6)
        assert list_problems(root) == []
        writer = recover_writer(root)
        assert (writer.cursor, writer.damage_reports) == (6, [])
        if frame[at:].strip(b"\0"):
            assert list(read_set_aside(root)) == ["torn"], f"{at} bytes"
            next(root.rglob("*.torn")).unlink()
        writer.close()
        (finished,) = root.rglob("*.ndjson.zst")
        finished.rename(finished.with_name(path.name))


def test_frames_of_other_usages_after_the_last_block_are_kept_in_doubt(root: Path) -> None:
    """Neither a killed process nor a power cut writes lines of other ids."""
    path = find_open_segment(root)
    data = path.read_bytes() + compress(render_batches([make_batch(70, 3)], 0, 1))[:-2]
    path.write_bytes(data)
    writer = recover_writer(root)
    assert (writer.cursor, read_set_aside(root)) == (6, {"torn": data})
    writer.close()


def test_zeros_after_the_last_frame_are_torn(root: Path) -> None:
    """A power cut kept only the file's size."""
    path = find_open_segment(root)
    path.write_bytes(path.read_bytes() + bytes(5000))
    writer = recover_writer(root)
    assert (writer.cursor, writer.damage_reports, read_set_aside(root)) == (6, [], {})
    writer.close()


@pytest.mark.formats(1, 2)
def test_blocks_under_another_name_are_not_deleted(root: Path) -> None:
    """The file's name begins at 5, but its contents count."""
    path = find_open_segment(root)
    path.rename(path.with_name(path.name.replace("01.ndjson", "05.ndjson")))
    writer = recover_writer(root)
    assert writer.cursor == 6
    writer.close()
    assert read_ids(root) == list(range(1, 7))


@pytest.mark.formats(1, 2)
def test_damage_in_an_open_segment_that_is_already_copied_is_ignored(root: Path) -> None:
    """Recovery died before the unlink. Then the disk changed the file, which no longer counts."""
    path = find_open_segment(root)
    data = path.read_bytes()
    recover_writer(root).close()
    path.write_bytes(data[:-1])
    assert list_problems(root) == []
    writer = recover_writer(root)
    assert (writer.cursor, writer.stats.highest_seq, writer.damage_reports) == (6, 6, [])
    writer.close()
    assert not find_open_segments(root)


def test_the_mark_is_exact_after_a_kill_and_only_grows(root: Path) -> None:
    path = root / "p00" / paths.HIGH_WATER_NAME

    def read_mark() -> int:
        lines = path.read_text().splitlines()
        assert len(lines) == 2
        return max(int(line.split()[2]) for line in lines)

    assert read_mark() == 6
    writer = recover_writer(root)
    assert read_mark() == 6
    for seq in range(7, 12):
        writer.append([make_batch(seq)])
        assert read_mark() == seq
    writer.record_gap(Seq(20), "why")
    assert read_mark() == 20
    writer.quarantine(Seq(21), Seq(21), b"raw", "why")
    assert read_mark() == 21
    writer.close()
    recover_writer(root).close()
    assert read_mark() == 21


def test_the_mark_follows_the_format_document(root: Path) -> None:
    """Read the mark and the example in FORMAT.md with zlib alone."""
    members = json.loads((root / "p00/partition.json").read_text())
    text = Path(archive.__file__).with_name("FORMAT.md").read_text()
    example = re.findall(r"^    (busyapi-highwater .*)", text, re.MULTILINE)
    lines = (root / "p00/highwater").read_text().splitlines()
    assert len(example) == len(lines) == 2
    for line in [*example, *lines]:
        before, _, crc = line.rpartition(" ")
        assert crc == f"{zlib.crc32(before.encode()):08x}"
        name, of, seq = before.split(" ")
        assert (name, len(seq)) == ("busyapi-highwater", 16)
        assert of == members["archive"] or line in example


def test_a_mark_with_one_torn_line_counts_and_with_two_proves_nothing(root: Path) -> None:
    path = root / "p00" / paths.HIGH_WATER_NAME
    archive_id = recover_id(root)
    first, find_last_block = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first[:-3] + b"??\n" + find_last_block)
    assert high_water.read_mark(root / "p00", archive_id) == 6
    path.write_bytes(first.replace(b"06 ", b"99 ") + find_last_block.replace(b"06 ", b"98 "))
    assert high_water.read_mark(root / "p00", archive_id) == 0
    assert list_problems(root) == []
    assert high_water.read_mark(root / "p00", "another") == 0


def recover_id(root: Path) -> str:
    writer = recover_writer(root)
    writer.close()
    return writer.identity.archive_id


def test_a_writer_that_was_fenced_off_no_longer_moves_the_mark(root: Path) -> None:
    archive_id = recover_id(root)
    old = high_water.HighWaterMark.create(root / "p00", archive_id, Seq(6))
    new = recover_writer(root)
    old.advance(Seq(8))
    assert high_water.read_mark(root / "p00", archive_id) == 6
    new.append([make_batch(7)])
    new.close()
    assert high_water.read_mark(root / "p00", archive_id) == 7
    old.close()


def test_a_mark_that_cannot_be_written_stops_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(high_water, "write_at", refuse)
    monkeypatch.setattr(high_water, "write_small_file", refuse)
    writer = recover_writer(root)
    writer.append([make_batch(7)])
    writer.record_gap(Seq(9), "why")
    writer.close()
    assert list_problems(root) == []


def test_an_archive_with_a_mark_and_no_identity_is_not_treated_as_new(
    root: Path,
) -> None:
    recover_writer(root).close()
    (root / "p00" / "partition.json").unlink()
    for path in root.rglob("usages*"):
        path.unlink()
    with pytest.raises(ArchiveDamaged):
        recover_writer(root)
