"""The formats of an export, each read by another reader, and where they go."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest

from testkit.archive.builder import RECEIVED_MS, join_usages, make_batch, recover_writer

DAY_MS = 86_400_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make an archive: ids 1 and 2 of one day, 3 of the next, 4 of the first again."""
    folder = tmp_path / "archive"
    writer = recover_writer(folder)
    more = b'{"patientId":"7","timestamp":"2016-11-01T09:11:51Z","medication":"A,\\"",'
    more += b'"a":{"b":[1.10]}}'
    writer.append([make_batch(1), make_batch(2)._replace(usages=more)])
    writer.append([make_batch(3, received_ms=RECEIVED_MS + DAY_MS), make_batch(4)])
    writer.close()
    return folder


def run(root: Path, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "busyapi", "archive", "export", "--dir", str(root), *words]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_csv_to_standard_output(root: Path) -> None:
    done = run(root, "--format", "csv", "-")
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [row["id"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[1]["medication"] == 'A,"'
    assert rows[1]["received_at"] == "2025-11-23 19:12:00.123Z"
    assert done.stderr == b"4 usages in standard output\n"


def test_ndjson_is_chosen_by_the_suffix(root: Path, tmp_path: Path) -> None:
    run(root, "--flatten", "/a/b", tmp_path / "x.ndjson")
    lines = (tmp_path / "x.ndjson").read_bytes().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [1, 2, 3, 4]
    assert json.loads(lines[1]) == {
        "id": 2,
        "received_at": "2025-11-23T19:12:00.123Z",
        "device_time": "2016-11-01T09:11:51.000Z",
        "device_time_text": "2016-11-01T09:11:51Z",
        "patient_id": "7",
        "medication": 'A,"',
        "tenant": None,
        "writer": None,
        "partition": 0,
        "extra": {"a": {"b": [1.1]}},
        "a.b": "[1.1]",
    }
    assert b'"extra":{"a":{"b":[1.10]}}' in lines[1]


@pytest.mark.parametrize("kind", ["csv", "ndjson", "parquet"])
def test_time_that_arrow_cannot_write_as_text_is_left_out(tmp_path: Path, kind: str) -> None:
    writer = recover_writer(tmp_path)
    times = [-8_640_000_000_000_000, -1_096_193_779_200_001, -1_096_193_779_200_000]
    times += [971_890_963_199_999, 971_890_963_200_000, 8_640_000_000_000_000]
    usages = [b'{"patientId":"7","timestamp":%d,"medication":"A"}' % time for time in times]
    writer.append([join_usages(1, usages)])
    writer.close()
    content = run(tmp_path, "--format", kind, "-").stdout
    if kind == "parquet":
        column = pyarrow.parquet.read_table(io.BytesIO(content))["device_time"]
        assert sorted(column.cast(pa.int64()).to_pylist()) == times
        return
    lines = content.decode().splitlines()
    rows = map(json.loads, lines) if kind == "ndjson" else csv.DictReader(lines)
    pairs = [(row["device_time"] or "", row["device_time_text"]) for row in rows]
    assert [text for _, text in pairs] == list(map(str, times))
    near = [time.replace("T", " ") for time, _ in pairs]
    assert near == [
        *("", "", "-32767-01-01 00:00:00.000Z"),
        *("32767-12-31 23:59:59.999Z", "", ""),
    ]


def test_arrow_file_and_stream(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path / "x.arrow")
    table = pa.ipc.open_file(tmp_path / "x.arrow").read_all()
    assert table["id"].to_pylist() == [1, 2, 3, 4]
    assert pa.ipc.open_stream(run(root, "--format", "arrow", "-").stdout).read_all() == table


def test_parquet_goes_through_a_pipe(root: Path) -> None:
    table = pa.parquet.read_table(io.BytesIO(run(root, "-").stdout))
    assert sorted(table["id"].to_pylist()) == [1, 2, 3, 4]


def test_folder_of_days(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "days"
    run(root, "--partition-by", "day", target)
    assert sorted(path.name for path in target.iterdir()) == [
        "received_day=2025-11-23",
        "received_day=2025-11-24",
    ]
    table = pyarrow.dataset.dataset(target, partitioning="hive").to_table()
    days = dict(zip(table["id"].to_pylist(), table["received_day"].to_pylist(), strict=True))
    assert days == {1: "2025-11-23", 2: "2025-11-23", 3: "2025-11-24", 4: "2025-11-23"}
    done = run(root, "--partition-by", "day", target, code=1)
    assert b"exists: name a new folder" in done.stderr
    assert run(root, "--partition-by", "day", "-", code=2).stderr.endswith(b"leave out - as FILE\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "days"]


def test_dev_stdout_is_never_replaced(root: Path, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "busyapi", "archive", "export", "--dir", root, "/dev/stdout"],
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert b"or - for standard output" in done.stderr
    assert Path("/dev/stdout").is_symlink()


def test_terminal_is_refused(root: Path) -> None:
    main, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "busyapi", "archive", "export", "--dir", root, "-"],
        stdout=terminal,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(main)
    os.close(terminal)
    assert (done.returncode, done.stderr.count(b"standard output is a terminal")) == (1, 1)


def test_output_that_is_cut_off_is_not_completed(root: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "busyapi", "archive", "export", "--dir", root, "-"],
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == b"busyapi: the output was cut off, so the result was not fully reported\n"


@pytest.mark.parametrize("pointer", ["device", "/", "", "/id"])
def test_wrong_path_is_refused(root: Path, tmp_path: Path, pointer: str) -> None:
    run(root, f"--flatten={pointer}", tmp_path / "x.parquet", code=2)


def test_ls_prints_an_object_for_each_file(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "busyapi", "archive", "ls", "--json", "--dir", str(root)],
        capture_output=True,
        timeout=60,
        check=True,
    )
    (row,) = map(json.loads, done.stdout.splitlines())
    assert (row["kind"], row["firstId"], row["lastId"], row["ids"]) == ("segment", 1, 4, 4)
    assert row["lastReceivedAt"] == "2025-11-24T19:12:00.123Z"
