"""`audit verify` says what is wrong with a trail, and nothing about a good one."""

import argparse
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from busyapi.audit.files import audit_folder
from busyapi.audit.head import Head, write_head
from busyapi.audit.record import seal_members
from busyapi.audit_cli import commands
from testkit.audit import list_paths, make_entry, open_writer, read_records, verify, write_reads


@pytest.fixture
def root(fast_path: Path) -> Path:
    """Write a trail of three files, with two reads in each."""
    folder = fast_path / "archive"
    for first in (1, 3, 5):
        write_reads(folder, first, first + 1, max_file_bytes=700)
    assert len(list_paths(folder)) == 3
    assert not verify(folder).problems
    return folder


def kinds(root: Path) -> set[str]:
    return {problem.kind for problem in verify(root).problems}


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("file", [0, 1, 2])
@pytest.mark.parametrize("record", [0, 1, 2])
def test_any_changed_byte_is_found(root: Path, file: int, record: int) -> None:
    path = list_paths(root)[file]
    lines = path.read_bytes().splitlines(keepends=True)
    whole = list(lines)
    for at in random.Random(file * 3 + record).sample(range(len(lines[record])), 40):
        changed = bytearray(lines[record])
        changed[at] ^= 1
        path.write_bytes(b"".join([*whole[:record], bytes(changed), *whole[record + 1 :]]))
        assert verify(root).problems, f"byte {at} of {lines[record]!r}"
    path.write_bytes(b"".join(whole))
    assert not verify(root).problems


def test_changed_record_is_named(root: Path) -> None:
    edit(list_paths(root)[1], lambda data: data.replace(b"clinic-a", b"clinic-b", 1))
    (problem,) = verify(root).problems
    assert problem.kind == "changed"
    assert problem.detail == "record 5 does not match its hash"


def test_deleted_record_is_named(root: Path) -> None:
    def delete(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        return b"".join([lines[0], *lines[2:]])

    edit(list_paths(root)[0], delete)
    problems = verify(root).problems
    assert ("missing", "records 2 to 2") in {(p.kind, p.detail) for p in problems}


def test_exchanged_records_are_found(root: Path) -> None:
    def exchange(data: bytes) -> bytes:
        begin, one, other, *rest = data.splitlines(keepends=True)
        return b"".join([begin, other, one, *rest])

    edit(list_paths(root)[0], exchange)
    assert "exchanged" in kinds(root)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_deleted_file_is_found(root: Path, at: int) -> None:
    list_paths(root)[at].unlink()
    assert kinds(root) & ({"cut off"} if at == 2 else {"missing"})


def test_exchanged_files_are_found(root: Path) -> None:
    one, other, _ = list_paths(root)
    spare = one.with_suffix(".tmp")
    one.rename(spare)
    other.rename(one)
    spare.rename(other)
    assert "exchanged" in kinds(root)


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_cut_end_is_found(root: Path, lines: int) -> None:
    edit(list_paths(root)[-1], lambda data: b"".join(data.splitlines(keepends=True)[:-lines]))
    assert "cut off" in kinds(root)


def test_end_that_is_cut_within_a_record_is_found(root: Path) -> None:
    edit(list_paths(root)[-1], lambda data: data[:-9])
    assert "cut off" in kinds(root)


def test_cut_end_stays_reported_after_the_writer_has_continued(root: Path) -> None:
    edit(list_paths(root)[-1], lambda data: b"".join(data.splitlines(keepends=True)[:-1]))
    write_reads(root, 7, 9)
    (problem,) = verify(root).problems
    assert problem.kind == "missing"
    assert problem.detail.startswith("records 9 to 9 were gone when the writer looked")


@pytest.mark.parametrize("at", [0, 1, 2])
def test_cut_middle_is_found(root: Path, at: int) -> None:
    edit(list_paths(root)[at], lambda data: data[: len(data) // 2])
    assert kinds(root) & {"cut off", "missing"}


def test_deleted_head_is_found(root: Path) -> None:
    (audit_folder(root, 0) / "head").unlink()
    assert verify(root).problems[0].detail == "the head"


def test_end_that_is_cut_with_the_head_stays_reported_after_the_writer_has_continued(
    root: Path,
) -> None:
    edit(list_paths(root)[-1], lambda data: b"".join(data.splitlines(keepends=True)[:-1]))
    (audit_folder(root, 0) / "head").unlink()
    write_reads(root, 7, 9)
    (problem,) = verify(root).problems
    assert problem.kind == "missing"
    assert problem.detail.startswith("the head was gone when the writer looked")


def test_all_files_deleted_is_found(root: Path) -> None:
    for path in list_paths(root):
        path.unlink()
    assert kinds(root) == {"cut off"}


def test_file_of_another_trail_is_found(root: Path, fast_path: Path) -> None:
    other = fast_path / "other"
    for first in (1, 3, 5):
        write_reads(other, first, first + 1, max_file_bytes=700)
    list_paths(root)[1].write_bytes(list_paths(other)[1].read_bytes())
    assert verify(root).problems


def test_appended_record_is_found(root: Path) -> None:
    line = list_paths(root)[2].read_bytes().splitlines(keepends=True)[-1]
    edit(list_paths(root)[2], lambda data: data + line)
    assert "exchanged" in kinds(root)


def append_expire(root: Path, through: int, digest: str) -> None:
    """Append an `expire` that fits into the chain, as whoever can write to the volume can."""
    path, last = list_paths(root)[-1], read_records(root)[-1]
    members = {
        "seq": last["seq"] + 1,
        "time": "2026-11-29T00:00:00.000Z",
        "action": "expire",
        "files": 1,
        "through": through,
        "through_hash": digest,
    }
    line, sealed = seal_members(members, last["hash"])
    edit(path, lambda data: data + line)
    write_head(audit_folder(root, 0), Head(last["seq"] + 1, sealed), sync=False)


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(root: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Return a function that runs `busyapi audit …` on the trail."""

    def run_command(*arguments: str, folder: Path = root) -> Result:
        parser = argparse.ArgumentParser(prog="busyapi")
        commands.add_commands(parser.add_subparsers(required=True), folder)
        try:
            options = parser.parse_args(["audit", *arguments])
            code = options.run(options, None)
        except SystemExit as stop:
            code = int(stop.code or 0)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Result(code, out.decode(), err.decode())

    return run_command


class TestCommands:
    """`busyapi audit` has the exit codes of `busyapi archive`."""

    def test_verify_of_a_good_trail_is_0_and_prints_its_head(self, run: Run, root: Path) -> None:
        result = run("verify")
        assert result.code == 0
        assert f"head {read_records(root)[-1]['hash']}" in result.out
        assert result.out.endswith("no problem found\n")

    def test_verify_of_a_changed_trail_is_1(self, run: Run, root: Path) -> None:
        edit(list_paths(root)[0], lambda data: data.replace(b"10.0.0.7", b"10.0.0.8", 1))
        result = run("verify", "--json")
        assert result.code == 1
        (problem,) = json.loads(result.out)["problems"]
        assert problem["kind"] == "changed"

    def test_no_trail_is_2(self, run: Run, fast_path: Path) -> None:
        result = run("verify", folder=fast_path)
        assert result.code == 2
        assert "holds no audit trail" in result.err
        assert run("cat", "--partition", "3").code == 2

    def test_hash_that_was_kept_elsewhere_proves_that_the_trail_was_replaced(
        self, run: Run, root: Path
    ) -> None:
        kept = read_records(root)[-2]["hash"]
        assert run("verify", "--expect", kept).code == 0
        for path in audit_folder(root, 0).iterdir():
            path.unlink()
        write_reads(root, 1, 6)
        assert run("verify").code == 0
        result = run("verify", "--expect", kept)
        assert result.code == 1
        assert f"no record has the expected hash {kept}" in result.out

    @pytest.mark.parametrize("through", [0, 1, 5, 9, 1000])
    def test_forged_expire_does_not_replace_a_hash_that_was_kept_elsewhere(
        self, run: Run, root: Path, through: int
    ) -> None:
        kept = read_records(root)[4]["hash"]
        for path in audit_folder(root, 0).iterdir():
            path.unlink()
        write_reads(root, 1, 6)
        append_expire(root, through, kept)
        result = run("verify", "--expect", kept)
        assert result.code == 1
        assert f"no record has the expected hash {kept}" in result.out
        report = verify(root)
        assert [problem.kind for problem in report.problems] == ["changed"] * (through > 0)

    def test_hash_of_an_expired_record_is_accepted_with_a_note(self, run: Run, root: Path) -> None:
        expired, before = read_records(root)[2], read_records(root)[1]
        append_expire(root, expired["seq"], expired["hash"])
        assert run("verify").code == 0, "a process may die before it deletes the file"
        list_paths(root)[0].unlink()
        result = run("verify", "--expect", expired["hash"])
        assert result.code == 0
        assert f"the expected hash {expired['hash']} is in records 1 to 3, which" in result.out
        assert run("verify", "--expect", before["hash"]).code == 1

    @pytest.mark.parametrize(
        ("arguments", "records"),
        [
            ([], 9),
            (["--action", "read"], 6),
            (["--usage", "3"], 1),
            (["--name", "clinic-a"], 6),
            (["--name", "nobody"], 0),
            (["--to", "2020-01-01"], 0),
            (["--from", "2020-01-01"], 9),
            (["--patient", "100"], 0),
        ],
    )
    def test_cat_prints_what_the_filters_select(
        self, run: Run, arguments: list[str], records: int
    ) -> None:
        result = run("cat", *arguments)
        assert result.code == 0
        assert len(result.out.splitlines()) == records

    def test_cat_reports_what_it_cannot_read(self, run: Run, root: Path) -> None:
        edit(list_paths(root)[0], lambda data: data.replace(b'"hash"', b'"hush"', 1))
        result = run("cat", "--action", "read")
        assert result.code == 1
        assert "the line at byte 0 is not a record" in result.err
        assert len(result.out.splitlines()) == 6


def test_writer_may_append_while_verify_reads(root: Path) -> None:
    writer = open_writer(root)
    for usage in range(20):
        writer.append([make_entry(usage)])
        assert not verify(root).problems
