"""holders.json and accepted-primary.json."""

from contextlib import closing
from pathlib import Path

import pytest

from busyapi.archive import paths
from busyapi.archive.holders import (
    Holders,
    delete_accepted,
    delete_holders,
    read_accepted,
    read_holders,
    write_accepted,
    write_holders,
)
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq
from testkit.archive.builder import make_batch, recover_writer

HOLDERS = Holders({"a:1": "one", "b:2": "two"}, frozenset({"b:2"}), Seq(7))


def test_holders_survive_in_their_file(tmp_path: Path) -> None:
    assert read_holders(tmp_path) == Holders()
    write_holders(tmp_path, HOLDERS)
    assert read_holders(tmp_path) == HOLDERS
    assert delete_holders(tmp_path)
    assert not delete_holders(tmp_path)
    assert read_holders(tmp_path) == Holders()


def test_accepted_process_survives_in_its_file(tmp_path: Path) -> None:
    assert read_accepted(tmp_path) == ""
    write_accepted(tmp_path, "run-history")
    assert read_accepted(tmp_path) == "run-history"
    delete_accepted(tmp_path)
    assert read_accepted(tmp_path) == ""


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"holders": ["a:1"], "raised": [], "seq": 1}']
)
def test_damaged_file_is_not_taken_for_a_missing_one(tmp_path: Path, content: str) -> None:
    (tmp_path / paths.HOLDERS_NAME).write_text(content)
    with pytest.raises(ArchiveDamaged):
        read_holders(tmp_path)


def test_changed_file_is_damaged(tmp_path: Path) -> None:
    write_holders(tmp_path, HOLDERS)
    path = tmp_path / paths.HOLDERS_NAME
    path.write_text(path.read_text().replace("a:1", "c:1"))
    with pytest.raises(ArchiveDamaged, match="checksum"):
        read_holders(tmp_path)


def test_last_usage_is_before_the_gap_records_at_the_end(tmp_path: Path) -> None:
    with closing(recover_writer(tmp_path)) as writer:
        assert writer.stats.last_usage == 0
        writer.append([make_batch(1, 3)])
        assert writer.stats.last_usage == 3
        writer.record_gap(Seq(10), "another server")
        writer.record_gap(Seq(20), "another server")
        assert writer.stats.last_usage == 3
        writer.append([make_batch(21)])
        assert writer.stats.last_usage == writer.cursor == 21
