"""What is appended is on disk in one chain, whoever appends and whatever failed before."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from busyapi.audit import writer as writer_module
from busyapi.audit.files import audit_folder, list_files
from busyapi.audit.head import Head, read_head, write_head
from busyapi.audit.record import InvalidEntry, decode_entry, encode_entry
from busyapi.errors import ArchiveFull, FsyncFailed
from testkit.audit import (
    list_paths,
    make_entry,
    open_writer,
    read_records,
    read_resources,
    verify,
    write_reads,
)
from testkit.volume import fill_volume, mount_small_volume

USAGES = [f"usage/{n}" for n in range(1, 7)]


def test_records_are_numbered_and_verified(fast_path: Path) -> None:
    write_reads(fast_path, 1, 6)
    report = verify(fast_path)
    assert (report.problems, report.notes) == ([], [])
    assert (report.records, report.first, report.last) == (7, 1, 7)
    assert read_resources(fast_path) == USAGES
    assert read_records(fast_path)[1] | {"time": "", "hash": ""} == {
        "seq": 2,
        "time": "",
        "action": "read",
        "resource": "usage/1",
        "name": "clinic-a",
        "from": "10.0.0.7",
        "status": 200,
        "request": "r-1",
        "hash": "",
    }


def test_two_writers_in_turn_continue_one_chain(fast_path: Path) -> None:
    one, other = open_writer(fast_path), open_writer(fast_path)
    for usage in range(1, 7):
        (one if usage % 2 else other).append([make_entry(usage)])
    assert read_resources(fast_path) == USAGES
    assert not verify(fast_path).problems


def test_full_files_are_followed_by_others(fast_path: Path) -> None:
    write_reads(fast_path, 1, 6, max_file_bytes=1)
    assert len(list_paths(fast_path)) == 6
    report = verify(fast_path)
    assert (report.problems, report.notes) == ([], [])
    assert read_resources(fast_path) == USAGES


def test_each_finished_file_reports_its_last_hash(fast_path: Path) -> None:
    writer = open_writer(fast_path, max_file_bytes=1)
    first = writer.append([make_entry(1)])
    writer.append([make_entry(2)])
    (finished,) = writer.finished
    assert finished.head == first
    assert finished.name == list_paths(fast_path)[0].name


@pytest.mark.parametrize("torn", [b"{", b'{"seq":9,"time":"2026', b"\0" * 5000])
def test_torn_end_stays_and_the_next_file_says_so(fast_path: Path, torn: bytes) -> None:
    write_reads(fast_path, 1, 3)
    (path,) = list_paths(fast_path)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(torn)
    write_reads(fast_path, 4, 6)
    begin = next(record for record in read_records(fast_path) if record["seq"] == 5)
    assert begin["why"] == "unconfirmed bytes"
    assert begin["after"] == {"file": path.name, "bytes": size}
    report = verify(fast_path)
    assert report.problems == []
    assert f"its last {len(torn)} bytes were never confirmed" in report.notes[0]
    assert path.read_bytes().endswith(torn)
    assert read_resources(fast_path)[-3:] == USAGES[3:]


def test_failed_sync_is_not_repeated_on_the_same_file(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(fast_path)
    writer.append([make_entry(1)])

    def fail(_: int, name: str) -> None:
        raise FsyncFailed(name)

    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "sync_file", fail)
        with pytest.raises(FsyncFailed):
            writer.append([make_entry(99)])
    writer.append([make_entry(2)])
    first, second = list_paths(fast_path)
    assert b"usage/99" in first.read_bytes()
    assert b'"why":"a sync failed"' in second.read_bytes()
    report = verify(fast_path)
    assert report.problems == []
    assert report.records == 4
    assert "never confirmed" in report.notes[0]


def test_full_volume_refuses_and_the_trail_continues(fast_path: Path) -> None:
    with mount_small_volume(fast_path, "1m"):
        writer = open_writer(fast_path)
        writer.append([make_entry(1)])
        ballast = fill_volume(fast_path)
        with pytest.raises(ArchiveFull, match="kept for usages"):
            writer.append([make_entry(2)])
        ballast.unlink()
        writer.note_resumed(1)
        writer.append([make_entry(3)])
        assert read_resources(fast_path) == ["usage/1", "usage/3"]
        assert read_records(fast_path)[2]["failed"] == 1
        assert verify(fast_path).problems == []


def test_volume_that_becomes_full_within_a_write_leaves_no_part_of_it(fast_path: Path) -> None:
    with mount_small_volume(fast_path, "1m"):
        writer = open_writer(fast_path)
        writer.append([make_entry(1)])
        (path,) = list_paths(fast_path)
        size = path.stat().st_size
        with pytest.raises(ArchiveFull):
            writer.append([make_entry(usage) for usage in range(8000)])
        assert path.stat().st_size == size
        writer.append([make_entry(2)])
        assert verify(fast_path).problems == []
        assert len(list_paths(fast_path)) == 1


def test_expired_files_are_deleted_after_the_chain_says_so(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in ("2026-11-01", "2026-11-02", "2026-11-20"):
        monkeypatch.setattr(writer_module, "utc_day", lambda day=day: day)
        write_reads(fast_path, 1, 2)
    writer = open_writer(fast_path, days=1)
    writer.append([make_entry(3)])
    monkeypatch.setattr(writer_module, "utc_day", lambda: "2026-11-21")
    names = [path.name for path in list_paths(fast_path)]
    assert writer.delete_expired() == names[:2]
    report = verify(fast_path)
    assert (report.problems, report.first) == ([], 7)
    assert read_records(fast_path)[-1]["action"] == "expire"
    assert writer.delete_expired() == []


def test_clock_that_jumps_ahead_expires_nothing(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "utc_day", lambda: "2026-11-01")
    write_reads(fast_path, 1, 2, max_file_bytes=1)
    writer = open_writer(fast_path, days=1)
    writer.append([make_entry(3, time="2026-11-01T10:00:00.000Z")])
    monkeypatch.setattr(writer_module, "utc_day", lambda: "2036-11-01")
    assert writer.delete_expired() == []
    assert len(list_paths(fast_path)) == 2


def test_files_of_root_belong_to_the_owner_of_the_folder(fast_path: Path) -> None:
    if os.geteuid() != 0:
        return  # only root can give files away
    folder = fast_path / "p00"
    folder.mkdir()
    os.chown(folder, 1234, 1234)
    write_reads(fast_path, 1, 1)
    paths = [folder / "audit", *(folder / "audit").iterdir()]
    assert {path.stat().st_uid for path in paths} == {1234}


def test_trail_whose_files_are_gone_continues_after_its_head(fast_path: Path) -> None:
    write_reads(fast_path, 1, 3)
    (path,) = list_paths(fast_path)
    path.unlink()
    write_reads(fast_path, 4, 4)
    assert [record["seq"] for record in read_records(fast_path)] == [5, 6]
    report = verify(fast_path)
    assert any("records 1 to 4 were gone" in problem.detail for problem in report.problems)


@pytest.mark.parametrize("has_head", [True, False])
def test_running_writer_notices_that_its_last_records_are_gone(
    fast_path: Path, *, has_head: bool
) -> None:
    writer = open_writer(fast_path)
    writer.append([make_entry(number) for number in range(1, 4)])
    (path,) = list_paths(fast_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    head = audit_folder(fast_path, 0) / "head"
    head.unlink()
    if has_head:
        digest = json.loads(lines[1])["hash"]
        write_head(audit_folder(fast_path, 0), Head(2, digest), sync=True)
    writer.append([make_entry(4)])
    writer.close()
    (problem,) = verify(fast_path).problems
    assert problem.detail.startswith("records 3 to 4 were gone when the writer looked")


def test_head_survives_a_torn_line(fast_path: Path) -> None:
    writer = open_writer(fast_path)
    for usage in range(1, 4):
        writer.append([make_entry(usage)])
    folder = audit_folder(fast_path, 0)
    head = read_head(folder)
    assert head
    assert head.seq == 4
    data = bytearray((folder / "head").read_bytes())
    newest = data.find(b"%016d" % head.seq)
    data[newest + 30] ^= 1
    (folder / "head").write_bytes(data)
    older = read_head(folder)
    assert older
    assert older.seq == 3
    assert not verify(fast_path).problems
    assert len(list_files(folder, 0)) == 1


def test_entry_survives_its_encoding() -> None:
    entry = make_entry(7, name="Zürich\n\0", count=5, dropped=2)
    assert decode_entry(encode_entry(entry)) == entry
    assert encode_entry(entry).isascii()
    assert b"\n" not in encode_entry(entry)


@pytest.mark.parametrize(
    "change",
    [
        {"action": "begin"},
        {"action": "other"},
        {"time": "yesterday"},
        {"time": "2026-13-01T00:00:00.000Z"},
        {"status": "200"},
        {"status": True},
        {"count": -1},
        {"name": None},
        {"name": "x" * 513},
        {"name": "\U0001f600" * 512},
        {"time": "0001-01-01T00:00:00.000Z"},
    ],
)
def test_false_entry_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidEntry):
        decode_entry(encode_entry(make_entry(**change)))


@pytest.mark.parametrize("line", [b"", b"1", b"[]", b"{}", b'{"seq":1}', b"[" * 100_000, b"\xff"])
def test_line_that_is_no_entry_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidEntry):
        decode_entry(line)
