"""Lines with a stamp: every reader takes them beside lines without one."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from busyapi.archive.archived_usage import parse_line
from busyapi.archive.writer import PartitionWriter
from busyapi.archive_cli import commands
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq
from busyapi.stamp import Stamp, encode_stamp
from testkit.archive.builder import (
    abandon_writer,
    find_segments,
    join_usages,
    make_usage,
    read_blocks,
    recover_writer,
)

STAMPS = [
    None,
    Stamp("8nC3hQ2vXr0aLw_K"),
    Stamp("8nC3hQ2vXr0aLw_K", "clinic-7"),
    Stamp("AAAAAAAAAAAAAAA-", 'Süd "7"},"writer":"x'),
    None,
]


def stamped_usages(first: int) -> list[bytes]:
    """Return usages from a seq on, one for each of the stamps."""
    return [
        make_usage(seq) + (encode_stamp(stamp) if stamp else b"")
        for seq, stamp in enumerate(STAMPS, first)
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make an archive with the stamps in a finished segment, and again in an open one."""
    folder = tmp_path / "archive"
    writer = recover_writer(folder)
    for first in (1, 6):
        writer.append([join_usages(first, stamped_usages(first))])
        if first == 1:
            writer.close()
            writer = recover_writer(folder)
    abandon_writer(writer)
    return folder


@pytest.fixture
def writer(root: Path) -> Iterator[PartitionWriter]:
    writer = recover_writer(root)
    yield writer
    writer.close()


def run(root: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    commands.add_commands(parser.add_subparsers(), root)
    options = parser.parse_args(["archive", *words])
    code: int = options.run(options, None)
    return code


def expected_lines() -> list[dict[str, object]]:
    lines = []
    for number, stamp in enumerate(STAMPS * 2, 1):
        line: dict[str, object] = {
            "id": number,
            "receivedAt": "2025-11-23T19:12:00.123Z",
            "usage": json.loads(make_usage(number)),
        }
        if stamp:
            line["writer"] = stamp.writer
        if stamp and stamp.tenant:
            line["tenant"] = stamp.tenant
        lines.append(line)
    return lines


def test_stamp_follows_the_usage_in_the_file(root: Path) -> None:
    (segment,) = find_segments(root)
    (block,) = read_blocks(segment)
    assert block.lines == expected_lines()[:5]
    assert list(block.lines[2]) == ["id", "receivedAt", "usage", "writer", "tenant"]


def test_lookup_finds_the_lines_after_recovery_too(writer: PartitionWriter) -> None:
    lines = [writer.find_line(Seq(seq)) for seq in range(1, 11)]
    assert [json.loads(line or b"") for line in lines] == expected_lines()


def test_verify_finds_no_problem(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(root, "verify", "--json") == 0
    assert json.loads(capfd.readouterr().out)["usages"] == 10


def test_cat_prints_stamps_and_selects_by_patient_and_time(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(root, "cat") == 0
    assert [json.loads(line) for line in capfd.readouterr().out.splitlines()] == expected_lines()
    assert run(root, "cat", "--patient", "3", "--from", "2025-11-23T19:12:00.123Z") == 0
    assert [json.loads(line) for line in capfd.readouterr().out.splitlines()] == [
        line for line in expected_lines() if line["id"] in {3, 10}
    ]
    assert run(root, "cat", "--id", "4") == 0
    assert json.loads(capfd.readouterr().out) == expected_lines()[3]


def test_export_has_the_stamps_in_columns_and_the_usage_without_them(
    root: Path, tmp_path: Path
) -> None:
    target = tmp_path / "x.parquet"
    assert run(root, "export", str(target)) == 0
    rows = sorted(pyarrow.parquet.read_table(target).to_pylist(), key=lambda row: row["id"])
    assert [(row["writer"], row["tenant"]) for row in rows] == [
        (line.get("writer"), line.get("tenant")) for line in expected_lines()
    ]
    assert [(row["patient_id"], row["device_time_text"], row["extra"]) for row in rows] == [
        (str(seq % 7), str(seq), None) for seq in range(1, 11)
    ]


def test_line_with_a_stamp_is_parsed() -> None:
    line = b'{"id":1,"receivedAt":"x","usage":%b}' % stamped_usages(1)[3]
    row = parse_line(line)
    assert (row.writer, row.tenant) == STAMPS[3]


@pytest.mark.parametrize(
    "stamp",
    [
        b',"writer":"short"',
        b',"tenant":"t"',
        b',"writer":"8nC3hQ2vXr0aLw_K","tenant":7',
        b',"writer":"8nC3hQ2vXr0aLw_K","tenant":"\\ud800"',
        b',"writer":"8nC3hQ2vXr0aLw_K","more":1',
        b',"writer":"8nC3hQ2vXr0aLw_K","writer":"8nC3hQ2vXr0aLw_K"',
    ],
)
def test_line_with_another_stamp_is_damaged(stamp: bytes) -> None:
    with pytest.raises(ArchiveDamaged, match="is not a line of the archive"):
        parse_line(b'{"id":1,"receivedAt":"x","usage":{}%b}' % stamp)
