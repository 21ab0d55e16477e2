"""The archive's commands, run in a process of their own or through the parser."""

import argparse
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet
import pytest

from busyapi.archive_cli import commands, export, export_formats, progress
from busyapi.ids import Seq
from testkit.archive.builder import (
    RECEIVED_MS,
    abandon_writer,
    change_identity,
    find_segments,
    join_usages,
    make_batch,
    recover_writer,
    write_blocks,
)

COMMAND_LINE = Path(__file__).parents[3] / "docs/reference/command-line.md"


class Result(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make an archive: segment 1-6 of two days, gap 7-8, segment 9, open 10-11."""
    folder = tmp_path / "archive"
    writer = recover_writer(folder)
    writer.append([make_batch(1, 3), make_batch(4, 1, received_ms=RECEIVED_MS + 86_400_000)])
    writer.append([make_batch(5, 2, received_ms=RECEIVED_MS + 86_400_000)])
    writer.record_gap(Seq(8), "why")
    writer.append([make_batch(9)])
    writer.close()
    write_blocks(folder, 2)
    return folder


@pytest.fixture
def run(root: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Return a function that runs `busyapi archive …` on the archive."""

    def run_command(name: str, *arguments: str, folder: Path = root) -> Result:
        parser = argparse.ArgumentParser(prog="busyapi")
        commands.add_commands(parser.add_subparsers(required=True), folder)
        try:
            options = parser.parse_args(["archive", name, *arguments])
            code = options.run(options, None)
        except SystemExit as stop:
            code = int(stop.code or 0)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Result(code, out.decode(), err.decode())

    return run_command


def ids(out: str) -> list[int]:
    return [json.loads(line)["id"] for line in out.splitlines()]


def test_cat_prints_every_usage_in_order(run: Run) -> None:
    result = run("cat")
    assert result.code == 0
    assert ids(result.out) == [1, 2, 3, 4, 5, 6, 9, 10, 11]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--from", "2025-11-24T19:12:00.123Z"], [4, 5, 6]),
        (["--from", "2025-11-24T20:12:00.123+01:00"], [4, 5, 6]),
        (["--from", "2025-11-24T19:12:00.124Z"], []),
        (["--to", "2025-11-24T19:12:00.123Z"], [1, 2, 3, 9, 10, 11]),
        (["--to", "2025-11-24T19:12:00.124Z"], [1, 2, 3, 4, 5, 6, 9, 10, 11]),
        (["--from", "2025-11-24", "--to", "2025-11-25"], [4, 5, 6]),
        (["--from", "2025-11-25"], []),
        (["--patient", "2"], [2, 9]),
        (["--patient", "2", "--to", "2025-11-24"], [2, 9]),
        (["--patient", "4", "--to", "2025-11-24"], [11]),
        (["--patient", "nobody"], []),
    ],
)
def test_cat_selects_by_time_and_by_patient(
    run: Run, arguments: list[str], expected: list[int]
) -> None:
    result = run("cat", *arguments)
    assert (result.code, ids(result.out)) == (0, expected)


def test_a_patient_is_found_whether_sent_as_text_or_as_a_number(run: Run, tmp_path: Path) -> None:
    writer = recover_writer(tmp_path / "other")
    usages = [b'{"patientId":100}', b'{"patientId":"100"}', b'{"patientId":[100]}', b"{}"]
    writer.append([join_usages(1, usages)])
    writer.close()
    assert ids(run("cat", "--patient", "100", folder=tmp_path / "other").out) == [1, 2]


@pytest.mark.parametrize("seq", [1, 3, 4, 6, 9, 11])
def test_cat_prints_one_usage_by_its_id(run: Run, seq: int) -> None:
    result = run("cat", "--id", str(seq))
    assert (result.code, ids(result.out)) == (0, [seq])


@pytest.mark.parametrize("seq", [7, 8, 12, 2**53])
def test_cat_says_that_an_id_is_not_archived(run: Run, seq: int) -> None:
    result = run("cat", "--id", str(seq))
    assert (result.code, result.out) == (1, "")
    assert str(seq) in result.err


def test_cat_finds_the_partition_of_an_id(run: Run, tmp_path: Path) -> None:
    for partition in (0, 2):
        write_blocks(tmp_path / "four", 5, partition=partition, partitions=4)
        recover_writer(tmp_path / "four", partition, 4).close()
    assert ids(run("cat", "--id", "7", folder=tmp_path / "four").out) == [7]
    result = run("cat", "--id", "8", folder=tmp_path / "four")
    assert result.code == 2
    assert "partition 3" in result.err
    assert ids(run("cat", folder=tmp_path / "four").out) == [1, 5, 9, 13, 17, 3, 7, 11, 15, 19]


def test_an_id_below_the_retention_floor_is_no_longer_kept(run: Run, root: Path) -> None:
    path = root / "p00" / "partition.json"
    change_identity(path, keptFrom=3)
    result = run("cat", "--id", "2")
    assert result.code == 1
    assert "retention" in result.err


@pytest.mark.formats(1)
@pytest.mark.parametrize("at", [80, -60])
def test_cat_and_export_continue_after_damage_and_report_it(
    run: Run, root: Path, tmp_path: Path, at: int
) -> None:
    path = find_segments(root)[0]
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    expected = [5, 6, 9, 10, 11] if at > 0 else [1, 2, 3, 4, 5, 6, 9, 10, 11]
    result = run("cat")
    assert (result.code, ids(result.out)) == (1, expected)
    assert path.name in result.err
    result = run("export", str(tmp_path / "x.parquet"))
    assert result.code == 1
    assert sorted(pyarrow.parquet.read_table(tmp_path / "x.parquet")["id"].to_pylist()) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["cat", "--from", "yesterday"],
        ["cat", "--from", "2025-11-24T19:12:00"],
        ["cat", "--id", "0"],
        ["cat", "--id", "-1"],
        ["cat", "--id", "9007199254740993"],
        ["cat", "--id", "x"],
        ["export", ""],
        ["accept-loss", "--partition", "0", "--through", "9"],
        ["nothing"],
    ],
)
def test_invalid_input_gets_a_message_and_no_traceback(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert "Traceback" not in result.err
    assert result.err.strip()


@pytest.mark.parametrize("command", ["ls", "cat", "verify", "export x"])
def test_without_an_archive_the_exit_code_is_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "nothing", tmp_path):
        result = run(*command.split(), folder=folder)
        assert result.code == 2
        assert str(folder) in result.err


def test_ls_lists_every_file_with_its_ids(run: Run) -> None:
    result = run("ls")
    rows = [line.split() for line in result.out.splitlines()]
    assert result.code == 0
    assert [row[0] for row in rows] == ["partition", "segment", "gap", "segment", "open"]
    assert "ids 1 to 6" in result.out
    assert "ids 7 to 8" in result.out
    assert "2025-11-23T19:12:00Z 2025-11-24T19:12:00Z" in result.out


def test_verify_prints_stats_and_exits_0_or_1(run: Run, root: Path) -> None:
    result = run("verify")
    assert result.code == 0
    assert "partition 0: 9 usages up to seq 11; 2 seqs in 1 gap records" in result.out
    assert "no problem found" in result.out
    find_segments(root)[1].unlink()
    result = run("verify")
    assert result.code == 1
    assert "missing   id 9 in no file" in result.out
    assert "1 problem found" in result.out


def test_verify_prints_json(run: Run, root: Path) -> None:
    result = run("verify", "--json")
    report = json.loads(result.out)
    assert (result.code, report["problems"], report["usages"], report["cursor"]) == (0, [], 9, 11)
    segment = find_segments(root)[1]
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    result = run("verify", "--json")
    assert result.code == 1
    (problem, *_) = json.loads(result.out)["problems"]
    assert (problem["kind"], problem["ids"]) == ("damaged", "id 9")
    assert segment.name in problem["detail"]


def test_accept_loss_records_exactly_the_missing_seqs(run: Run, root: Path) -> None:
    find_segments(root)[0].unlink()
    result = run(
        "accept-loss", "--partition", "0", "--through", "14", "--reason", "disk 7 died", "--yes"
    )  # fmt: skip
    assert result.code == 0
    assert "seqs 1 to 6" in result.out
    assert "seqs 12 to 14" in result.out
    assert "now ends at seq 14" in result.out
    assert run("verify").code == 0
    assert ids(run("cat").out) == [9, 10, 11]
    record = json.loads(next(root.rglob("gap-p00-0000000000000001*")).read_text())
    assert (record["from"], record["to"]) == (1, 6)
    assert "disk 7 died" in record["why"]
    assert record["when"].endswith("Z")
    writer = recover_writer(root)
    assert (writer.cursor, writer.stats.skipped_seqs) == (14, 11)
    writer.close()


def test_accept_loss_prints_the_seqs_that_are_still_missing(run: Run, root: Path) -> None:
    find_segments(root)[0].unlink()
    result = run("accept-loss", "--partition", "0", "--through", "3", "--reason", "x", "--yes")
    assert result.code == 0
    assert "still missing, up to seq 11" in result.out


@pytest.mark.parametrize("through", ["11", "20"])
def test_accept_loss_can_also_replace_another_archive(run: Run, root: Path, through: str) -> None:
    arguments = ["--partition", "0", "--through", through, "--reason", "x", "--yes"]
    assert run("accept-loss", *arguments, "--replaces", "another").code == 0
    writer = recover_writer(root)
    assert (writer.identity.replaces, writer.cursor) == ("another", int(through))
    writer.close()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--partition", "0", "--through", "11"], 1),
        (["--partition", "1", "--through", "20"], 2),
        (["--partition", "-1", "--through", "20"], 2),
    ],
)
def test_accept_loss_refuses_invalid_arguments(
    run: Run, root: Path, arguments: list[str], code: int
) -> None:
    before = sorted(root.rglob("gap*"))
    result = run("accept-loss", *arguments, "--reason", "x", "--yes")
    assert result.code == code
    assert result.err.startswith("busyapi: ")
    assert sorted(root.rglob("gap*")) == before


def test_accept_loss_refuses_a_seq_that_no_id_can_have(run: Run, root: Path) -> None:
    before = sorted(root.rglob("gap*"))
    result = run(
        "accept-loss", "--partition", "0", "--through", str(2**53 + 1), "--reason", "x", "--yes"
    )  # fmt: skip
    assert result.code == 1
    assert "is above" in result.err
    assert "copy the number from the flusher's message" in result.err
    assert sorted(root.rglob("gap*")) == before


def test_accept_loss_fails_while_the_flusher_holds_the_lock(run: Run, root: Path) -> None:
    writer = recover_writer(root)
    result = run("accept-loss", "--partition", "0", "--through", "20", "--reason", "x", "--yes")
    assert result.code == 1
    assert "another process writes" in result.err
    assert writer.cursor == 11
    writer.append([make_batch(12)])
    writer.close()


def test_accept_loss_without_a_terminal_asks_for_yes(run: Run, root: Path) -> None:
    result = run("accept-loss", "--partition", "0", "--through", "20", "--reason", "x")
    assert result.code == 1
    assert "--yes" in result.err
    assert len(list(root.rglob("gap*"))) == 1


@pytest.mark.parametrize(("typed", "code"), [("9", 0), ("8", 1), ("y", 1), ("", 1)])
def test_accept_loss_accepts_only_the_typed_number(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    terminal = io.StringIO(typed + "\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    result = run("accept-loss", "--partition", "0", "--through", "20", "--reason", "x")
    assert result.code == code
    assert len(list(root.rglob("gap*"))) == (2 if code == 0 else 1)


def test_export_is_read_back_by_pyarrow(run: Run, root: Path, tmp_path: Path) -> None:
    writer = recover_writer(root)
    odd = [
        '{"patientId":100,"medication":"Ä","timestamp":1763925120123,"more":{"a":[1.10]}}'.encode(),
        b'{"patientId":true,"medication":null,"timestamp":{}}',
    ]
    writer.append([join_usages(12, odd)])
    abandon_writer(writer)
    target = tmp_path / "x.parquet"
    result = run("export", str(target))
    assert result.code == 0
    assert "11 usages" in result.out
    rows = sorted(pyarrow.parquet.read_table(target).to_pylist(), key=lambda row: row["id"])
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13]
    assert rows[0]["received_at"].isoformat() == "2025-11-23T19:12:00.123000+00:00"
    names = ("patient_id", "medication", "device_time_text", "extra")
    assert [rows[0][name] for name in names] == ["1", "Albuterol", "1", None]
    assert [rows[-2][name] for name in names] == [
        *("100", "Ä", "1763925120123", '{"more":{"a":[1.10]}}')
    ]
    assert rows[-2]["device_time"].isoformat() == "2025-11-23T19:12:00.123000+00:00"
    # What is no text is not lost.
    assert [rows[-1][name] for name in names] == [
        *(None, None, None, '{"patientId":true,"medication":null,"timestamp":{}}')
    ]
    assert rows[-1]["device_time"] is None
    assert list(tmp_path.glob("*.tmp")) == []


def test_export_writes_in_groups_of_rows(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_formats, "ROW_GROUP_ROWS", 4)
    monkeypatch.setattr(export, "BATCH_BYTES", 1)
    target = tmp_path / "x.parquet"
    assert run("export", "--to", "2026-01-01", str(target)).code == 0
    assert pyarrow.parquet.ParquetFile(target).num_row_groups == 3
    assert pyarrow.parquet.read_table(target).num_rows == 9


def test_a_failed_export_leaves_the_existing_file(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "x.parquet"
    target.write_bytes(b"before")
    assert run("export", str(target), folder=tmp_path / "nothing").code == 1
    assert run("export", "--replace", str(target), folder=tmp_path / "nothing").code == 2
    assert run("export", "--partition", "9", "--replace", str(target)).code == 2
    assert target.read_bytes() == b"before"
    result = run("export", str(tmp_path / "no-such-folder" / "x.parquet"))
    assert result.code == 1
    assert "Traceback" not in result.err
    assert list(tmp_path.glob("*.tmp")) == []


def test_export_without_pyarrow_names_the_package(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("export", str(tmp_path / "x.parquet"))
    assert result.code == 1
    (command_line,) = re.findall(r"`(\S*pip install [^`]+)`", result.err)
    assert f"`{command_line}`" in COMMAND_LINE.read_text(encoding="utf-8")
    assert f"`{command_line}`" in run("export", "--help").out


SCRIPT = """
import argparse, sys
from pathlib import Path
from busyapi.archive_cli import commands, progress
progress._INTERVAL_SECONDS = 0
parser = argparse.ArgumentParser(prog="busyapi")
commands.add_commands(parser.add_subparsers(required=True), Path(sys.argv[1]))
options = parser.parse_args(["archive", *sys.argv[2:]])
sys.exit(options.run(options, None))
"""


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(root), *arguments]


def test_cat_is_silent_when_its_reader_closes_the_pipe(tmp_path: Path) -> None:
    write_blocks(tmp_path, *[5000] * 10)
    with subprocess.Popen(
        command(tmp_path, "cat"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_verify_fails_if_its_output_is_cut_off(tmp_path: Path) -> None:
    write_blocks(tmp_path, 2, 1)
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        command(tmp_path, "verify"), stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False
    )
    os.close(writer)
    assert result.returncode == 1
    assert (
        result.stderr == b"busyapi: the output was cut off, so the result was not fully reported\n"
    )


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    write_blocks(tmp_path, 2, 1)
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        command(tmp_path, "verify"), stdout=subprocess.PIPE, stderr=terminal
    ) as process:
        out = process.communicate()[0]
    os.close(terminal)
    assert b"\rverifying: " in os.read(controller, 10_000)
    os.close(controller)
    assert b"verifying" not in out
    result = subprocess.run(command(tmp_path, "verify"), capture_output=True, check=True)
    assert result.stderr == b""


def test_progress_ends_at_100_percent_and_clears_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_INTERVAL_SECONDS", 0)
    bar = progress.Progress("reading", 10)
    monkeypatch.setattr("time.monotonic", lambda: bar._started + 2)
    bar.advance(5)
    bar.advance(7)
    bar.clear()
    assert terminal.getvalue().split("\r")[1:] == [
        "reading: 0 MB, 50 %, 0.0 MB/s, 2 s left \x1b[K",
        "reading: 0 MB, 100 %, 0.0 MB/s, 0 s left \x1b[K",
        "\x1b[K",
    ]


def test_every_command_has_help_with_an_example(run: Run) -> None:
    for name in ("ls", "cat", "verify", "export", "accept-loss", "confirm-restore"):
        result = run(name, "--help")
        assert result.code == 0
        assert f"  busyapi archive {name}" in result.out
        assert "--dir" in result.out
