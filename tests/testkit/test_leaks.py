"""Sent data in a log is found and fails the run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from testkit.log_leaks import MARK, find_leaks

ROOT = Path(__file__).parents[2]
PLANTED = f'''
import pytest

@pytest.mark.parametrize("number", range(2))
def test_passes(number, tmp_path):
    (tmp_path / "api-0.log").write_text("""{{"event": "planted", "detail": "of {MARK}-secret"}}""")
'''


def find_in(line: str, name: str = "api-0.log") -> list[str]:
    # Not in pytest's folder: there the run's own search would find it.
    with TemporaryDirectory() as folder:
        (log := Path(folder) / name).write_text(f'{{"event": "fine"}}\n{line}\n')
        return [leak.removeprefix(f"{log}: ") for leak in find_leaks(Path(folder), {log})]


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"event": "lost", "detail": f"key {MARK.upper()}-1"}, "lost, detail"),
        ({"event": "lost", "why": {"medication": ["Albuterol"]}}, "lost, why"),
        ({"event": "lost", "at": "Tue Nov 01 2016 09:11:51"}, "lost, at"),
        ({"event": f"lost {MARK}"}, "?, event"),
        ({"event": "lost", MARK: 1}, "lost, the name of a field"),
    ],
)
def test_sent_data_is_found_with_its_place_and_not_repeated(
    fields: dict[str, Any], place: str
) -> None:
    assert find_in(json.dumps(fields)) == [place]
    assert find_in(json.dumps(fields), "api-0.log.1") == [place]


def test_a_line_that_is_no_event_is_searched_too() -> None:
    assert find_in(f"ValueError: {MARK}-100") == ["None, a line that is not an event"]
    assert find_in('{"event": "redis_disconnected", "reason": "RedisUnavailable"}') == []


def test_a_log_that_cannot_be_searched_is_named(tmp_path: Path) -> None:
    assert find_leaks(tmp_path, {tmp_path / "gone.log"}) == [
        f"{tmp_path / 'gone.log'}: not below {tmp_path}"
    ]


def test_a_run_with_such_a_log_fails_in_each_of_its_workers() -> None:
    with TemporaryDirectory() as folder:
        (test := Path(folder) / "test_planted.py").write_text(PLANTED)
        # No other plugin: their imports would take most of the time.
        plugins = ("-p", "xdist", "-p", "tests.conftest", "-p", "no:cacheprovider")
        argv = ["-c", "/dev/null", *plugins, "-n", "2", f"--basetemp={folder}/base", str(test)]
        run = subprocess.run(
            [sys.executable, "-m", "pytest", *argv],
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert run.returncode == 1, run.stdout
    assert "2 passed, 2 errors" in run.stdout, run.stdout
    assert run.stdout.count("api-0.log: planted, detail") >= 2, run.stdout
    assert "secret" not in run.stdout
