"""make-venv: what a bare machine runs first."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAKE_VENV = Path(__file__).parents[2] / ".ci/make-venv"


class Machine:
    """A PATH with nothing but what is put there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "bin"
        self.path.mkdir()
        for name in ("rm", "env"):
            self.link(name, Path(shutil.which(name) or ""))
        self.has("id", "echo 1000")
        self.system("Linux", "x86_64")

    def system(self, kernel: str, processor: str) -> None:
        """Set what uname says."""
        self.has("uname", f'case $1 in -s) echo "{kernel}" ;; *) echo "{processor}" ;; esac')

    def link(self, name: str, program: Path) -> None:
        (self.path / name).symlink_to(program)

    def has(self, name: str, script: str) -> None:
        """Put a shell script there."""
        (self.path / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.path / name).chmod(0o755)

    def make_venv(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run .ci/make-venv as make does, with the shell that every system has."""
        return subprocess.run(
            ["/bin/sh", MAKE_VENV, self.folder / "venv"],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            env={"PATH": str(self.path), **environment},
        )


MUSL = "case $2 in *libc_ver*) exit 1 ;; esac"
"""Alpine's Python, asked for its libc."""
UNABLE = 'if [ "$2" = venv ]; then exit 1; fi'
"""Debian's, without its venv package."""
OLD = "exit 1"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def able(machine: Machine, name: str) -> None:
    body = f'mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo {name} > "$3/made"'
    machine.has(name, f'PATH={os.environ["PATH"]}\nif [ "$2" = venv ]; then {body}; fi')


def test_newest_python_that_can_make_one_is_taken(machine: Machine) -> None:
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
    assert "There is no Python 3.11 or newer: installing python3 python3-venv" in made.stdout
    asked = (machine.folder / "asked").read_text()
    assert asked == "-qq update\ninstall -y --no-install-recommends python3 python3-venv\n"


@pytest.mark.parametrize(
    ("kernel", "processor", "name", "advice"),
    [
        ("MINGW64_NT-10.0-22631", "x86_64", "Windows", "Use WSL 2"),
        ("FreeBSD", "amd64", "FreeBSD", "docker run"),
        ("Linux", "riscv64", "riscv64", "docker run"),
    ],
)
def test_unsupported_system_is_named_with_the_way_out(
    machine: Machine, kernel: str, processor: str, name: str, advice: str
) -> None:
    able(machine, "python3.11")
    machine.system(kernel, processor)
    failed = machine.make_venv()
    assert failed.returncode == 1
    assert "Linux with glibc (x86-64 or arm64) or macOS" in failed.stderr
    assert f"this is {name}." in failed.stderr
    assert advice in failed.stderr
    assert not (machine.folder / "venv").exists()


def test_without_glibc_it_names_an_existing_server_or_a_container(machine: Machine) -> None:
    machine.has("python3.12", MUSL)
    failed = machine.make_venv()
    assert failed.returncode == 1
    assert "make run REDIS=redis://127.0.0.1:6379" in failed.stderr
    assert "docker run --rm -it -p 3000:3000" in failed.stderr


def test_without_glibc_an_existing_server_is_enough(machine: Machine) -> None:
    able(machine, "able")
    machine.has("python3.12", f'{MUSL}\nexec "{machine.path}/able" "$@"')
    assert machine.make_venv(REDIS="redis://127.0.0.1:6379").returncode == 0


def test_glibc_is_asked_of_the_python_itself() -> None:
    (script,) = re.findall(r"other_libc='(.*?)'", MAKE_VENV.read_text(), re.DOTALL)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    musl = f"import platform; platform.libc_ver = lambda: ('', '')\n{script}"
    assert subprocess.run([sys.executable, "-c", musl], check=False).returncode == 1


def test_too_old_python_without_apt_gets_a_container_or_brew(machine: Machine) -> None:
    machine.has("python3", OLD)
    failed = machine.make_venv()
    assert "There is no Python 3.11 or newer. Install one, or use a container:" in failed.stderr
    machine.has("brew", "exit 0")
    failed = machine.make_venv()
    assert "brew install python@3.13" in failed.stderr


def test_packages_that_bring_an_older_python_end_in_a_container(machine: Machine) -> None:
    (machine.path / "id").unlink()
    machine.has("id", "echo 0")
    machine.has("python3", OLD)
    machine.has("apt-get", "exit 0")
    failed = machine.make_venv()
    assert failed.returncode == 1
    assert "Where that brings an older Python, use a container:" in failed.stderr
