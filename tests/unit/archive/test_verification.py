"""The result of the last verification on disk."""

from pathlib import Path

import pytest

from busyapi.archive.verification import Verification, read_verification, write_verification

RESULT = Verification(1_763_925_120.0, 3)


def test_written_result_is_read(tmp_path: Path) -> None:
    assert read_verification(tmp_path) is None
    write_verification(tmp_path, RESULT)
    assert read_verification(tmp_path) == RESULT


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "null",
        "\udcff",
        '{"ended": 1, "problems": 0}',
        '{"ended": "x", "problems": 0}',
        '{"ended": "2026-11-23T12:30:00Z", "problems": "x"}',
    ],
)
def test_unreadable_result_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "verified.json").write_bytes(content.encode(errors="surrogateescape"))
    assert read_verification(tmp_path) is None


def test_result_that_cannot_be_written_is_ignored(tmp_path: Path) -> None:
    write_verification(tmp_path / "missing", RESULT)
    assert read_verification(tmp_path / "missing") is None
