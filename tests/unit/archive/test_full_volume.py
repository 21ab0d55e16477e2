"""Deletion needs no space: retention and recovery work on a volume full of expired segments."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from busyapi.archive import disk_reserve, identity, paths
from busyapi.archive.format import UsageBatch
from busyapi.archive.identity import Identity
from busyapi.archive.paths import utc_day
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import ArchiveFull
from busyapi.ids import Seq
from busyapi.strides import Strides
from testkit.archive.builder import (
    DAY_MS,
    abandon_writer,
    find_open_segments,
    list_file_names,
    make_batch,
    now_ms,
    read_ids,
    recover_writer,
    write_as_0_2_0,
)
from testkit.volume import fill_volume, mount_small_volume

KEEP_DAYS = 5
OLD = 180
"""Usages of ten days ago. They have more bytes than the open segment, which recovery copies."""


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """Mount a volume of one MiB."""
    with mount_small_volume(tmp_path, "1m"):
        yield tmp_path


def append_noise(writer: PartitionWriter, size: int = 6000, *, at: int | None = None) -> None:
    """Append a usage that does not compress."""
    seq = Seq(writer.cursor + 1)
    line = b'{"timestamp":%d,"n":"%b"}' % (seq, os.urandom(size // 2).hex().encode())
    writer.append([UsageBatch(seq, seq, at or now_ms(), line)])


def fill_archive(root: Path, *, with_reserve: bool, by_0_2_0: bool = False) -> PartitionWriter:
    """Fill a volume with expired segments, an open segment of today and a file of ballast."""
    writer = recover_writer(root, segment_bytes=60_000)
    for _ in range(OLD):
        append_noise(writer, at=now_ms() - 10 * DAY_MS)
        writer.roll_if_due()
    writer.close()
    old = root / "p00" / utc_day()
    old.rename(old.with_name(utc_day(time.time() - 10 * 86_400)))
    writer = recover_writer(root)
    if not with_reserve:
        disk_reserve.release_reserve(root / "p00")
    if by_0_2_0:
        write_as_0_2_0(root / "p00" / paths.IDENTITY_NAME)
    for size in (6000, 100):
        with pytest.raises(ArchiveFull):  # noqa: PT012 - until there is no room
            while True:
                append_noise(writer, size)
    fill_volume(root)
    assert os.statvfs(root).f_bavail == 0
    return writer


def list_expired(root: Path) -> list[Path]:
    """List the segments that retention should delete."""
    return [path for path in root.rglob("usages-*.zst") if path.parent.name < utc_day()]


KINDS = [(True, False), (False, False), (False, True)]
KIND_NAMES = ["reserve", "no reserve", "as 0.2.0 left it"]


@pytest.mark.parametrize("kind", KINDS, ids=KIND_NAMES)
def test_append_on_a_full_volume_deletes_expired_segments_and_continues(
    volume: Path, kind: tuple[bool, bool]
) -> None:
    writer = fill_archive(volume, with_reserve=kind[0], by_0_2_0=kind[1])
    cursor = writer.cursor
    writer._config = writer._config._replace(retention_days=KEEP_DAYS)  # midnight has passed
    append_noise(writer)
    assert writer.cursor == cursor + 1
    assert list_expired(volume) == []
    assert writer.identity.kept_from == OLD + 1
    abandon_writer(writer)
    writer = recover_writer(volume)
    assert (writer.cursor, writer.identity.kept_from, writer.identity.is_copy) == (
        cursor + 1,
        OLD + 1,
        False,
    )
    assert writer.damage_reports == []
    writer.close()
    assert read_ids(volume) == list(range(OLD + 1, cursor + 2))


@pytest.mark.formats(1, 2)
@pytest.mark.parametrize("kind", KINDS, ids=KIND_NAMES)
def test_a_killed_writer_recovers_on_a_full_volume_by_deleting_expired_segments(
    volume: Path, kind: tuple[bool, bool]
) -> None:
    writer = fill_archive(volume, with_reserve=kind[0], by_0_2_0=kind[1])
    cursor = writer.cursor
    abandon_writer(writer)
    assert find_open_segments(volume)
    # A larger bound must be on disk before it applies: that needs no space either.
    writer = recover_writer(volume, bound=9000, retention_days=KEEP_DAYS)
    assert (writer.cursor, writer.identity.bound) == (cursor, 9000)
    append_noise(writer)
    writer.roll_if_due()
    assert (writer.identity.kept_from, list_expired(volume)) == (OLD + 1, [])
    writer.close()
    assert read_ids(volume) == list(range(OLD + 1, cursor + 2))


def test_without_anything_expired_a_full_volume_deletes_nothing(volume: Path) -> None:
    """This is the control: nothing is old enough for retention, or retention is off."""
    writer = fill_archive(volume, with_reserve=False)
    cursor = writer.cursor
    writer._config = writer._config._replace(retention_days=11)
    with pytest.raises(ArchiveFull):
        append_noise(writer)
    assert (writer.cursor, writer.identity.kept_from) == (cursor, 1)
    assert list_expired(volume)
    abandon_writer(writer)
    with pytest.raises(ArchiveFull):
        recover_writer(volume)
    assert read_ids(volume) == list(range(1, cursor + 1))


def test_a_clean_stop_on_a_full_volume_finishes_the_segment_in_the_reserve(volume: Path) -> None:
    writer = fill_archive(volume, with_reserve=True)
    cursor = writer.cursor
    writer.close()
    assert not find_open_segments(volume)
    writer = recover_writer(volume)  # there is nothing to copy
    assert writer.cursor == cursor
    writer.close()


@pytest.mark.formats(1, 2)
def test_a_stop_without_room_for_the_footer_is_recovered_by_deleting_segments(
    volume: Path,
) -> None:
    writer = fill_archive(volume, with_reserve=False)
    cursor = writer.cursor
    writer.close()
    assert find_open_segments(volume)
    writer = recover_writer(volume, retention_days=KEEP_DAYS)
    assert (writer.cursor, list_expired(volume)) == (cursor, [])
    writer.close()


def test_the_reserve_is_made_again_when_there_is_room(volume: Path) -> None:
    writer = fill_archive(volume, with_reserve=True)
    path = volume / "p00" / paths.RESERVE_NAME
    assert path.stat().st_size == disk_reserve.RESERVE_BYTES
    assert path.stat().st_blocks * 512 == disk_reserve.RESERVE_BYTES
    writer.close()
    assert not path.exists()
    writer = recover_writer(volume)
    assert not path.exists(), "the reserve must not take the last space"
    (volume / "ballast").unlink()
    shutil.rmtree(list_expired(volume)[0].parent)
    writer.close()
    recover_writer(volume).close()
    assert path.stat().st_size == disk_reserve.RESERVE_BYTES


def test_a_reserve_that_was_created_without_space_gets_it(tmp_path: Path) -> None:
    recover_writer(tmp_path).close()
    path = tmp_path / "p00" / paths.RESERVE_NAME
    path.write_bytes(b"")
    recover_writer(tmp_path).close()
    assert path.stat().st_blocks * 512 >= disk_reserve.RESERVE_BYTES


@pytest.mark.formats(1, 2)
def test_a_footer_of_a_file_that_could_not_be_renamed_leaves_nothing_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = recover_writer(tmp_path, segment_bytes=1)
    for _ in range(20):
        writer.append([make_batch(writer.cursor + 1)])

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", no_space)
        with pytest.raises(ArchiveFull):
            writer.roll_if_due()
    writer.append([make_batch(21)])
    abandon_writer(writer)
    writer = recover_writer(tmp_path)
    assert (writer.cursor, writer.damage_reports) == (21, [])
    assert len(list_file_names(tmp_path)) == 1, "a file was set aside"
    writer.close()


# --- in place ------------------------------------------------------------------------------


LARGEST = Identity(
    archive_id="f" * 32,
    partition=9999,
    strides=Strides.fixed(10_000),
    bound=10**9,
    kept_from=Seq(2**53),
    is_seeded=False,
    replaces="f" * 32,
    file_birth="born:9763925120123456789",
    prefix="p" * 63,
)


def test_an_identity_of_any_content_is_one_sector(tmp_path: Path) -> None:
    identity.write_identity(tmp_path, LARGEST)
    assert (tmp_path / paths.IDENTITY_NAME).stat().st_size <= disk_reserve._SECTOR_BYTES


def test_overwriting_keeps_length_birth_and_unknown_members(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"keptFrom": 1, "later": [1]}, indent=2) + "\n")
    before = path.stat()
    disk_reserve.overwrite_members(path, {"keptFrom": 123_456, "absent": True})
    after = path.stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    assert json.loads(path.read_text()) == {"keptFrom": 123_456, "later": [1]}


@pytest.mark.parametrize("text", ['{"keptFrom":1}', json.dumps({"keptFrom": 1, "x": "y" * 600})])
def test_overwriting_refuses_content_that_does_not_fit(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(ArchiveFull):
        disk_reserve.overwrite_members(path, {"keptFrom": 2})
    assert path.read_text() == text


def test_every_step_of_overwriting_can_be_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.2.0 wrote the file and the volume is full: either the old or the new file remains."""
    recover_writer(tmp_path).close()
    folder = tmp_path / "p00"
    stored = identity.read_identity(folder)
    assert stored
    before = (folder / paths.IDENTITY_NAME).read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    disk_reserve.release_reserve(folder)
    with monkeypatch.context() as patched:
        patched.setattr("busyapi.archive.identity.write_small_file", fail)
        patched.setattr("busyapi.archive.disk_reserve.write_at", fail)
        with pytest.raises(OSError, match="No space"):
            identity.write_identity(folder, stored._replace(kept_from=Seq(77)))
    assert (folder / paths.IDENTITY_NAME).read_bytes() == before
    with monkeypatch.context() as patched:
        patched.setattr("busyapi.archive.identity.write_small_file", fail)
        written = identity.write_identity(folder, stored._replace(kept_from=Seq(77)))
    assert identity.read_identity(folder) == written
    assert (written.kept_from, written.is_copy) == (77, False)
    writer = recover_writer(tmp_path)
    writer.append([make_batch(writer.cursor + 1)]) if writer.cursor else writer.close()
    writer.close()


def test_a_prefix_that_a_file_of_0_2_0_has_no_room_for_is_refused_on_a_full_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the write succeeded without the prefix on disk, the next start would halt."""
    recover_writer(tmp_path).close()
    folder = tmp_path / "p00"
    write_as_0_2_0(folder / paths.IDENTITY_NAME)
    disk_reserve.release_reserve(folder)
    stored = identity.read_identity(folder)
    assert stored

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("busyapi.archive.identity.write_small_file", fail)
    with pytest.raises(ArchiveFull):
        identity.write_identity(folder, stored._replace(is_seeded=True, prefix="other"))
    assert identity.read_identity(folder) == stored
