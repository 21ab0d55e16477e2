import errno
import json
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from busyapi import archive, cli
from busyapi.archive import paths, recovery
from busyapi.archive.identity import read_identity
from busyapi.errors import (
    ArchiveDamaged,
    ArchiveLocked,
    FsyncFailed,
    LossSuspected,
    PartitionMismatch,
    UnknownVersion,
)
from busyapi.ids import Seq
from testkit.archive.builder import (
    FRAME_MAGIC,
    abandon_writer,
    change_identity,
    find_open_segment,
    find_segments,
    list_file_names,
    make_batch,
    read_blocks,
    read_ids,
    recover_writer,
    set_high_water,
    write_blocks,
)


def recover_and_append(root: Path) -> tuple[int, int, list[str]]:
    """Recover, append one usage if allowed, and return cursor, highest seq and damage."""
    writer = recover_writer(root)
    result = writer.cursor, writer.stats.highest_seq, writer.damage_reports
    if writer.stats.highest_seq == writer.cursor:
        writer.append([make_batch(writer.cursor + 1)])
    writer.close()
    return result


@pytest.mark.formats(1, 2)
def test_a_fresh_archive_is_empty_and_has_an_identity(tmp_path: Path, archive_format: int) -> None:
    writer = recover_writer(tmp_path / "deep" / "root", 2, 4, bound=500)
    assert (
        writer.cursor,
        writer.stats.highest_seq,
        writer.stats.skipped_seqs,
        writer.identity.kept_from,
    ) == (
        0,
        0,
        0,
        1,
    )
    members = json.loads((tmp_path / "deep/root/p02/partition.json").read_text())
    expected = {
        "format": archive_format,
        "archive": writer.identity.archive_id,
        "partition": 2,
        "partitions": 4,
        "bound": 500,
        "keptFrom": 1,
    }
    assert {name: members[name] for name in expected} == expected
    writer.close()


@pytest.mark.formats(1, 2)
def test_an_open_segment_becomes_a_finished_one(tmp_path: Path) -> None:
    path = write_blocks(tmp_path, 3, 1, 2)
    segment_blocks = list(read_blocks(path))
    assert recover_and_append(tmp_path) == (6, 6, [])
    assert list_file_names(tmp_path)[0] == "usages-p00-0000000000000001-0000000000000006.ndjson.zst"
    assert list(read_blocks(find_segments(tmp_path)[0])) == segment_blocks
    assert not path.exists()
    assert read_ids(tmp_path) == [1, 2, 3, 4, 5, 6, 7]


def test_an_old_open_file_is_never_written_again(tmp_path: Path) -> None:
    """After a failed fsync the page cache is unreliable: only a new file's fsync is proof."""
    path = write_blocks(tmp_path, 1)
    old_inode = path.stat().st_ino
    recover_writer(tmp_path).close()
    (new_path,) = find_segments(tmp_path)
    assert new_path.stat().st_ino != old_inode


@pytest.mark.formats(1, 2)
def test_a_tail_torn_at_any_length_is_cut_back_to_the_cursor(fast_path: Path) -> None:
    whole = write_blocks(fast_path / "whole", 2, 1, 3)
    ends = [block.end for block in read_blocks(whole)]
    data = whole.read_bytes()
    for length in range(len(data) + 1):
        root = fast_path / "torn"
        shutil.copytree(fast_path / "whole", root)
        find_open_segment(root).write_bytes(data[:length])
        cursor = [0, 2, 3, 6][sum(end <= length for end in ends)]
        set_high_water(root, cursor if length % 2 else None)
        assert recover_and_append(root) == (cursor, cursor, []), f"cut to {length} bytes"
        assert read_ids(root) == list(range(1, cursor + 2)), f"cut to {length} bytes"
        assert not list(root.rglob("*.torn")), f"cut to {length} bytes"
        shutil.rmtree(root)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_last_block_that_reached_the_disk_in_part_is_cut_off(
    fast_path: Path, data: st.DataObject
) -> None:
    """A power cut keeps some pages of the last write and loses others, in any order.

    The rest of it may be kept, but is not reported.
    """
    root = Path(tempfile.mkdtemp(dir=fast_path))
    path = write_blocks(root, 2, 5)
    set_high_water(root, data.draw(st.sampled_from([2, None])))
    raw, start = bytearray(path.read_bytes()), list(read_blocks(path))[-1].offset
    step = data.draw(st.integers(1, 200))
    pages = list(range(start, len(raw), step))
    lost = data.draw(st.sets(st.sampled_from(pages), min_size=1))
    for at in lost:
        page = raw[at : at + step]
        other = bytes(byte ^ 0xFF for byte in page)
        raw[at : at + step] = data.draw(st.sampled_from([bytes(len(page)), other]))
    path.write_bytes(raw[: data.draw(st.integers(start, len(raw)))])
    changed = len(list(read_blocks(path))) == 1
    assert recover_and_append(root) == ((2, 2, []) if changed else (7, 7, []))
    assert read_ids(root) == list(range(1, recover_cursor(root) + 1))
    shutil.rmtree(root)


def recover_cursor(root: Path) -> int:
    writer = recover_writer(root)
    writer.close()
    return writer.cursor


@pytest.mark.formats(1, 2)
def test_damage_before_the_end_is_set_aside_and_halts_until_it_is_accepted(
    fast_path: Path,
) -> None:
    whole = write_blocks(fast_path / "whole", 2, 3, 1)
    data, segment_blocks = whole.read_bytes(), list(read_blocks(whole))
    for at in range(segment_blocks[2].offset):
        root = fast_path / "damaged"
        shutil.copytree(fast_path / "whole", root)
        find_open_segment(root).write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
        if list(read_blocks(find_open_segment(root))) == segment_blocks:
            # Some bits of a zstd frame mean nothing: its content and checksum stay the same.
            assert data.startswith(FRAME_MAGIC)
            assert recover_and_append(root) == (6, 6, [])
            shutil.rmtree(root)
            continue
        lost = segment_blocks[0] if at < segment_blocks[1].offset else segment_blocks[1]
        intact_ids = [n for n in range(1, 7) if not lost.first <= n <= lost.last]

        writer = recover_writer(root)
        assert (writer.cursor, writer.stats.highest_seq) == (lost.first - 1, 6), f"byte {at}"
        assert len(writer.damage_reports) == 1
        assert read_ids(root) == intact_ids
        with pytest.raises(LossSuspected):
            writer.append([make_batch(writer.cursor + 1)])
        with pytest.raises(LossSuspected):
            writer.quarantine(Seq(lost.first), Seq(lost.first), b"", "why")
        writer.close()

        next_writer = recover_writer(root)
        assert (next_writer.cursor, next_writer.stats.highest_seq, next_writer.damage_reports) == (
            lost.first - 1,
            6,
            [],
        )
        next_writer.record_gap(Seq(6), "accepted")
        assert (next_writer.cursor, next_writer.stats.highest_seq) == (6, 6)
        assert next_writer.stats.skipped_seqs == lost.last - lost.first + 1
        next_writer.append([make_batch(7)])
        next_writer.close()
        assert read_ids(root) == [*intact_ids, 7]
        (aside,) = root.rglob("*.damaged")
        assert aside.read_bytes() == data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]
        shutil.rmtree(root)


@pytest.mark.formats(1, 2)
def test_a_changed_byte_anywhere_in_the_newest_segment_loses_no_other_block(
    fast_path: Path,
) -> None:
    write_blocks(fast_path / "whole", 2, 3, 1)
    recover_writer(fast_path / "whole").close()
    data = find_segments(fast_path / "whole")[0].read_bytes()
    segment_blocks = list(read_blocks(find_segments(fast_path / "whole")[0]))
    for at in range(0, len(data), 3):
        root = fast_path / "damaged"
        shutil.copytree(fast_path / "whole", root)
        find_segments(root)[0].write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        writer = recover_writer(root)
        assert len(writer.damage_reports) == 1, f"byte {at}"
        hit = [block for block in segment_blocks if block.offset <= at < block.end]
        lost = [n for block in hit for n in range(block.first, block.last + 1)]
        assert read_ids(root) == [n for n in range(1, 7) if n not in lost]
        assert (writer.cursor, writer.stats.highest_seq) == ((hit[0].first - 1) if hit else 6, 6)
        writer.close()
        shutil.rmtree(root)


@pytest.mark.formats(1, 2)
def test_two_damaged_files_of_one_name_are_both_kept(tmp_path: Path, archive_format: int) -> None:
    write_blocks(tmp_path, 2)
    recover_writer(tmp_path).close()
    for n in (1, 2):
        path = find_segments(tmp_path)[0]
        # After the blocks, in format 1 in the footer: every block is salvaged.
        path.write_bytes(
            path.read_bytes()[:-1] if archive_format == 1 else path.read_bytes() + b"x"
        )
        writer = recover_writer(tmp_path)
        assert (writer.cursor, writer.stats.highest_seq, len(writer.damage_reports)) == (2, 2, 1)
        writer.close()
        assert len(list(tmp_path.rglob("*.damaged*"))) == n


def test_only_the_newest_segments_are_read_at_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = recover_writer(tmp_path, segment_bytes=1)
    for seq in range(1, 21):
        writer.append([make_batch(seq)])
        writer.roll_if_due()
    writer.close()
    read_files: list[str] = []
    real = os.open

    def watch(path: os.PathLike[str] | str, flags: int, *rest: int) -> int:
        read_files.append(Path(path).name)
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", watch)
    recover_writer(tmp_path).close()
    assert [name for name in read_files if name.endswith(".zst")] == [
        path.name for path in find_segments(tmp_path)[-recovery.CHECKED_SEGMENTS :]
    ]


def test_a_segment_that_is_missing_in_the_middle_halts(tmp_path: Path) -> None:
    for _ in range(3):
        write_blocks(tmp_path, 2)
    recover_writer(tmp_path).close()
    find_segments(tmp_path)[1].unlink()
    writer = recover_writer(tmp_path)
    assert (writer.cursor, writer.stats.highest_seq) == (2, 6)
    assert writer.find_holes(Seq(6)) == [(3, 4)]
    writer.record_gap(Seq(6), "accepted")
    assert (writer.cursor, writer.stats.skipped_seqs) == (6, 2)
    writer.close()
    assert read_ids(tmp_path) == [1, 2, 5, 6]


def test_two_files_with_the_same_seqs_stop_recovery(tmp_path: Path) -> None:
    write_blocks(tmp_path, 4)
    recover_writer(tmp_path).close()
    (path,) = find_segments(tmp_path)
    copy = path.with_name(paths.name_file(paths.FileKind.GAP, "d", 0, Seq(2), Seq(3)).path[2:])
    copy.write_text("{}")
    with pytest.raises(ArchiveDamaged, match="same seqs"):
        recover_writer(tmp_path)
    copy.unlink()
    assert recover_and_append(tmp_path) == (4, 4, [])


def test_a_finished_segment_and_its_open_source_count_once(tmp_path: Path) -> None:
    """The process died between the rename of the copy and the unlink of its source."""
    path = write_blocks(tmp_path, 2, 1)
    data = path.read_bytes()
    recover_writer(tmp_path).close()
    path.write_bytes(data)
    assert recover_and_append(tmp_path) == (3, 3, [])
    assert read_ids(tmp_path) == [1, 2, 3, 4]


@pytest.mark.formats(1, 2)
def test_an_open_segment_with_a_footer_is_finished_again(tmp_path: Path) -> None:
    """The process died between footer and rename."""
    write_blocks(tmp_path, 2, 1)
    recover_writer(tmp_path).close()
    (path,) = find_segments(tmp_path)
    path.rename(path.with_name("usages-p00-0000000000000001.ndjson.zst.open"))
    assert recover_and_append(tmp_path) == (3, 3, [])
    assert read_ids(tmp_path) == [1, 2, 3, 4]


def test_a_block_of_another_partition_is_not_taken_over(tmp_path: Path) -> None:
    other_path = write_blocks(tmp_path / "other", 2, partition=1, partitions=2)
    own_path = write_blocks(tmp_path / "own", 2, 2, partition=0, partitions=2)
    own_path.write_bytes(other_path.read_bytes())
    writer = recover_writer(tmp_path / "own", 0, 2)
    assert writer.cursor == 0
    assert len(writer.damage_reports) == 1
    with pytest.raises(LossSuspected):
        writer.append([make_batch(1)])
    writer.close()


def test_temporary_files_are_removed_and_unknown_ones_kept(tmp_path: Path) -> None:
    day = write_blocks(tmp_path, 1).parent
    (day / "usages-p00-0000000000000002.ndjson.zst.open.tmp").write_bytes(b"half")
    (day / "gap-p00-0000000000000002-0000000000000003.json.tmp").write_bytes(b"half")
    (day / "notes.txt").write_text("by a person")
    assert recover_and_append(tmp_path) == (1, 1, [])
    assert not list(tmp_path.rglob("*.tmp"))
    assert (day / "notes.txt").exists()


def test_gap_and_quarantine_count_after_a_restart(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, 2)])
    writer.record_gap(Seq(10), "why")
    writer.quarantine(Seq(11), Seq(12), b"raw\nbytes", "checksum")
    writer.append([make_batch(13)])
    abandon_writer(writer)
    next_writer = recover_writer(tmp_path)
    assert (next_writer.cursor, next_writer.stats.highest_seq, next_writer.stats.skipped_seqs) == (
        13,
        13,
        8,
    )
    assert [bool(next_writer.find_line(Seq(n))) for n in (2, 3, 10, 11, 12, 13)] == [
        *(True, False, False, False, False, True)
    ]
    next_writer.close()
    assert read_ids(tmp_path) == [1, 2, 13]


def test_a_second_writer_cannot_lock(tmp_path: Path) -> None:
    first = recover_writer(tmp_path)
    with pytest.raises(ArchiveLocked):
        recover_writer(tmp_path)
    first.close()
    recover_writer(tmp_path).close()


def test_the_lock_is_taken_before_anything_is_read(tmp_path: Path) -> None:
    first = recover_writer(tmp_path)
    first.append([make_batch(1)])
    with pytest.raises(ArchiveLocked):
        recover_writer(tmp_path, bound=10**6)
    first.append([make_batch(2)])
    first.close()
    assert read_ids(tmp_path) == [1, 2]
    identity = read_identity(tmp_path / "p00")
    assert identity
    assert identity.bound == 1000


def test_another_partition_is_refused(tmp_path: Path) -> None:
    recover_writer(tmp_path, 1, 4).close()
    (tmp_path / "p01").rename(tmp_path / "p00")
    with pytest.raises(PartitionMismatch, match="partition 1 of 4"):
        recover_writer(tmp_path, 0, 4)


def test_fewer_partitions_than_at_install_are_refused(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path, 1, 4)
    writer.update_identity(is_seeded=True)
    writer.close()
    recover_writer(tmp_path, 1, 8).close()
    with pytest.raises(PartitionMismatch, match=r"installation of 4 partitions.* says 3"):
        recover_writer(tmp_path, 1, 3)


def test_partition_that_never_existed_gets_no_archive(tmp_path: Path) -> None:
    with pytest.raises(PartitionMismatch, match="partition 4 has no archive"):
        recover_writer(tmp_path, 4, 4)


@pytest.mark.formats(1, 2)
def test_strides_change_between_segments_and_are_read_again(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path, 1, 4)
    writer.append([make_batch(1, 3)])
    writer.update_identity(strides=writer.identity.strides.widen(Seq(4), 8))
    writer.append([make_batch(4, 2)])
    abandon_writer(writer)
    writer = recover_writer(tmp_path, 1, 8)
    assert writer.damage_reports == []
    lines = [writer.find_line(Seq(seq)) or b"" for seq in range(1, 6)]
    assert [json.loads(line)["id"] for line in lines] == [2, 6, 10, 26, 34]
    writer.close()
    assert len(list(tmp_path.glob("p01/*/usages-*"))) == 2
    assert cli.main(["archive", "verify", "--dir", str(tmp_path), "--partition", "1"]) == 0
    assert json.loads((tmp_path / "p01" / "partition.json").read_bytes())["format"] == 2


def test_the_bound_only_grows_and_is_on_disk_at_once(tmp_path: Path) -> None:
    first = recover_writer(tmp_path, bound=1000)
    archive_id = first.identity.archive_id
    abandon_writer(first)
    for bound, largest in ((5000, 5000), (10, 5000), (5001, 5001)):
        writer = recover_writer(tmp_path, bound=bound)
        identity = read_identity(tmp_path / "p00")
        assert identity
        assert (writer.identity.bound, identity.bound, writer.identity.archive_id) == (
            largest,
            largest,
            archive_id,
        )
        abandon_writer(writer)


def test_marks_are_on_disk_at_once_and_do_not_remove_each_other(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    assert (writer.identity.is_seeded, writer.identity.replaces) == (False, "")
    writer.update_identity(is_seeded=True)
    abandon_writer(writer)
    writer = recover_writer(tmp_path, bound=5000)
    assert (writer.identity.is_seeded, writer.identity.replaces) == (True, "")
    writer.update_identity(replaces="another")
    abandon_writer(writer)
    writer = recover_writer(tmp_path)
    assert (writer.identity.is_seeded, writer.identity.replaces, writer.identity.bound) == (
        True,
        "another",
        5000,
    )
    writer.close()


def test_a_bound_that_could_not_be_written_is_not_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recover_writer(tmp_path, bound=1000).close()

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", refuse)
        with pytest.raises(FsyncFailed):
            recover_writer(tmp_path, bound=2000)
    writer = recover_writer(tmp_path, bound=1)
    assert writer.identity.bound == 1000
    writer.close()


@pytest.mark.parametrize("text", [None, "", "{}", "[1]", '{"format":0}', '{"format":1}'])
def test_a_missing_or_unreadable_identity_is_not_replaced(tmp_path: Path, text: str | None) -> None:
    write_blocks(tmp_path, 1)
    path = tmp_path / "p00" / "partition.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(ArchiveDamaged):
        recover_writer(tmp_path)
    assert read_ids(tmp_path) == [1]


def test_every_changed_digit_of_an_identity_is_damage_and_deletes_nothing(tmp_path: Path) -> None:
    write_blocks(tmp_path, 3)
    path = tmp_path / "p00" / "partition.json"
    text = path.read_text()
    assert '"crc"' in text
    for at in range(len(text)):
        changed = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
        # Without this member the file looks as if 0.2.0 had written it.
        if text[at].isalnum() and '"crc"' in changed:
            path.write_text(changed)
            with pytest.raises((ArchiveDamaged, UnknownVersion, PartitionMismatch)):
                recover_writer(tmp_path, retention_days=1)
    path.write_text(text)
    recover_writer(tmp_path).close()
    assert read_ids(tmp_path) == [1, 2, 3]


def test_an_identity_that_a_person_or_0_2_0_wrote_needs_no_checksum(tmp_path: Path) -> None:
    write_blocks(tmp_path, 3)
    path = tmp_path / "p00" / "partition.json"
    change_identity(path, bound=2000)
    for bound in (1000, 3000):
        writer = recover_writer(tmp_path, bound=bound)
        assert (writer.cursor, writer.identity.bound) == (3, max(2000, bound))
        writer.close()
    assert "crc" in json.loads(path.read_text())


def test_the_checksum_of_an_identity_follows_the_format_document(tmp_path: Path) -> None:
    """Compute it with zlib alone, also for the example in FORMAT.md."""
    write_blocks(tmp_path, 1)
    text = Path(archive.__file__).with_name("FORMAT.md").read_text()
    example = text[text.index("{\n") : text.index("}\n") + 1]
    for content in ((tmp_path / "p00" / "partition.json").read_text(), example):
        members = json.loads(content)
        crc = members.pop("crc")
        others = json.dumps(members, sort_keys=True, separators=(",", ":"))
        assert crc == f"{zlib.crc32(others.encode()):08x}"
