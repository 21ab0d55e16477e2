"""Every mutant finds what it replaces, and a process with one that does not ends at once."""

import inspect
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from busyapi.stream.scripts import COMMIT, Script
from testkit import mutants
from testkit.broken_build import (
    Mutant,
    MutantTargetChanged,
    broken_build,
    replace,
    replace_in_script,
)

ALL = [
    function
    for name, function in vars(mutants).items()
    if inspect.isfunction(function) and function.__module__ == mutants.__name__ and name[0] != "_"
]


def run(*broken: Mutant, code: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | broken_build(*broken),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_mutant_finds_what_it_replaces() -> None:
    process = run(*ALL)
    assert process.returncode == 0, process.stderr


SHOW = "from busyapi.api import app; print(app.KEEP_ALIVE_SECONDS)"


def test_a_process_is_broken_before_anything_runs() -> None:
    process = run(
        mutants.shorten_idle_time, code="from busyapi.api import app; print(app.KEEP_ALIVE_SECONDS)"
    )
    assert process.stdout == "1\n"


def no_such_mutant() -> None: ...


def test_a_process_with_an_unknown_mutant_ends() -> None:
    process = run(no_such_mutant, code="print('runs')")
    assert (process.returncode, process.stdout) == (70, "")
    assert "no_such_mutant" in process.stderr


class Seams:
    """Parts that mutants replace."""

    limit = 1

    def write(self, data: bytes) -> None: ...

    async def send(self, data: bytes) -> None: ...


def write_text(self: Seams, text: bytes) -> None: ...


def send_at_once(self: Seams, data: bytes) -> None: ...


@pytest.mark.parametrize(
    ("name", "new", "message"),
    [
        ("missing", write_text, "Seams.missing does not exist"),
        ("write", write_text, r"Seams.write has the arguments \(self, data: bytes\)"),
        ("send", send_at_once, "Seams.send is not awaited"),
        ("limit", 1.0, "Seams.limit is of type int"),
    ],
)
def test_a_part_that_changed_is_named(name: str, new: Any, message: str) -> None:
    with pytest.raises(MutantTargetChanged, match=message):
        replace(Seams, name, new)


@pytest.mark.parametrize("source", ["", "local function other()\nend\n", "f()\nend\n"])
def test_a_script_without_the_function_is_refused(source: str) -> None:
    script = SimpleNamespace(source=source.encode(), sha1="")
    with pytest.raises(MutantTargetChanged, match="0 functions of a script are called f"):
        replace_in_script(script, "f", "return 1")  # type: ignore[arg-type]


def test_a_function_of_a_script_gets_another_body() -> None:
    script = Script("commit_checks", "commit")
    replace_in_script(script, "is_retry", "return false")
    assert b"local function is_retry(token)\n  return false\nend\n" in script.source
    assert script.sha1 != COMMIT.sha1
    assert len(script.source.split(b"\n")) == len(COMMIT.source.split(b"\n"))


def test_an_attribute_gets_its_new_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Seams, "limit", 1)
    replace(Seams, "limit", 2)
    assert Seams.limit == 2
