"""A short run of the long fill, and the usages that it posts."""

import json
from pathlib import Path

import pytest

from bench import growth
from bench.realistic import make_batch, make_usages
from busyapi.decode import usage
from perf import archive_ids
from perf.archive_ids import Archived

FEW = ["--usages", "2000", "5000"]


@pytest.mark.long
def test_a_short_fill_is_measured_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "looks.json"
    (work := tmp_path / "work").mkdir()
    assert growth.main([*FEW, "--folder", str(work), "--json", str(result)]) == 0
    first, second = json.loads(result.read_text())
    assert first["usages"] < second["usages"]
    assert second["restart_seconds"].keys() == {"api-0", "api-1", "flusher", "valkey"}
    assert "no problem found" in capsys.readouterr().out
    assert not list(work.iterdir())


@pytest.mark.long
def test_a_missing_line_fails_the_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_ids, "count_lines", lambda _: Archived(lines=1))
    with pytest.raises(RuntimeError, match="1 lines for"):
        growth.main([*FEW[:2], "--folder", str(tmp_path)])


def test_every_usage_of_a_realistic_batch_is_valid_and_few_are_alike() -> None:
    batch_usages = make_usages(1, 1000)
    lines = [usage.decode_fast(json.dumps(item).encode(), strict=True) for item in batch_usages]
    assert all(lines)
    assert len(set(lines)) > 990


def test_a_seed_always_makes_the_same_batch() -> None:
    assert make_batch(1, 10) == make_batch(1, 10) != make_batch(2, 10)
