"""Makefile, locks and make-venv: what a bare machine meets first."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-test.lock")
EXTRAS = {
    "requirements.lock": [],
    "requirements-dev.lock": ["dev-server"],
    "requirements-test.lock": ["dev-server", "loadtest", "parquet", "test"],
}


def locked(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_every_dependency_of_its_extras(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in EXTRAS[name]:
        wanted += project["optional-dependencies"][extra]
    names = {re.split(r"[\[<>=]", each)[0] for each in wanted} - {"busyapi"}
    assert names <= set(locked(name))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_registry_and_no_machine(name: str) -> None:
    assert not re.search(r"://|^-|/(home|root|tmp|work)/", (ROOT / name).read_text(), re.MULTILINE)


def test_what_is_tested_is_what_runs() -> None:
    image, dev, test = (locked(name) for name in LOCKS)
    assert image.items() <= dev.items() <= test.items()


def test_make_alone_lists_every_target_and_does_nothing() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory", "-C", ROOT],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    ).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert set(re.findall(r"^  make (\S+)", listed, re.MULTILINE)) == set(phony[1].split())


class Machine:
    """A PATH with nothing but what is put there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "bin"
        self.path.mkdir()
        for name in ("rm", "env"):
            self.link(name, Path(shutil.which(name) or ""))
        self.has("id", "echo 1000")

    def link(self, name: str, program: Path) -> None:
        (self.path / name).symlink_to(program)

    def has(self, name: str, script: str) -> None:
        """Put a shell script there."""
        (self.path / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.path / name).chmod(0o755)

    def make_venv(self) -> subprocess.CompletedProcess[str]:
        """Run .ci/make-venv as make does."""
        return subprocess.run(
            ["/bin/bash", ROOT / ".ci/make-venv", self.folder / "venv"],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            env={"PATH": str(self.path)},
        )


UNABLE = 'if [ "$2" = venv ]; then exit 1; fi'
"""Debian's, without its venv package."""
OLD = "exit 1"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def able(machine: Machine, name: str) -> None:
    body = f'mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo {name} > "$3/made"'
    machine.has(name, f'PATH={os.environ["PATH"]}\nif [ "$2" = venv ]; then {body}; fi')


def test_the_newest_python_that_can_make_one_is_taken(machine: Machine) -> None:
    machine.has("python3.14", "exit 127")  # a shim with nothing behind it
    machine.has("python3.13", UNABLE)
    able(machine, "python3.12")
    able(machine, "python3.11")
    made = machine.make_venv()
    assert made.returncode == 0, made.stderr
    assert (machine.folder / "venv/made").read_text() == "python3.12\n"


def test_without_root_it_prints_the_line_to_type(machine: Machine) -> None:
    machine.has("python3.11", UNABLE)
    machine.has("apt-get", "exit 0")
    failed = machine.make_venv()
    assert failed.returncode == 1
    assert "python3.11 cannot make a virtual environment. As root, please type:" in failed.stderr
    assert "apt-get install -y --no-install-recommends python3-venv" in failed.stderr


def test_as_root_it_installs_what_is_missing_and_tries_again(machine: Machine) -> None:
    (machine.path / "id").unlink()
    machine.has("id", "echo 0")
    machine.has("python3.11", OLD)
    able(machine, "later")
    machine.has(
        "apt-get",
        f'echo "$@" >> {machine.folder}/asked\nPATH={os.environ["PATH"]}\n'
        f"cp {machine.path}/later {machine.path}/python3",
    )
    made = machine.make_venv()
    assert made.returncode == 0, made.stderr
    assert "there is no Python 3.11 or newer: installing python3 python3-venv" in made.stdout
    asked = (machine.folder / "asked").read_text()
    assert asked == "-qq update\ninstall -y --no-install-recommends python3 python3-venv\n"
