"""make-venv, the first script that a new machine runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAKE_VENV = Path(__file__).parents[2] / ".ci/make-venv"


class Machine:
    """A PATH that holds only the programs that a test adds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "bin"
        self.path.mkdir()
        for name in ("rm", "env"):
            self.link(name, Path(shutil.which(name) or ""))
        self.add_script("id", "echo 1000")
        self.set_system("Linux", "x86_64")

    def set_system(self, kernel: str, processor: str) -> None:
        """Set the output of uname."""
        self.add_script("uname", f'case $1 in -s) echo "{kernel}" ;; *) echo "{processor}" ;; esac')

    def link(self, name: str, program: Path) -> None:
        (self.path / name).symlink_to(program)

    def add_script(self, name: str, script: str) -> None:
        """Add a shell script."""
        (self.path / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.path / name).chmod(0o755)

    def make_venv(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run .ci/make-venv as make does, with /bin/sh."""
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
"""The answer of Alpine's Python about its libc."""
CANNOT_CREATE_VENV = 'if [ "$2" = venv ]; then exit 1; fi'
"""Debian's Python without its venv package."""
OLD = "exit 1"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def add_python(machine: Machine, name: str) -> None:
    body = f'mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo {name} > "$3/made"'
    machine.add_script(name, f'PATH={os.environ["PATH"]}\nif [ "$2" = venv ]; then {body}; fi')


def test_newest_python_that_can_make_a_venv_is_used(machine: Machine) -> None:
    machine.add_script("python3.14", "exit 127")  # a shim without a Python
    machine.add_script("python3.13", CANNOT_CREATE_VENV)
    add_python(machine, "python3.12")
    add_python(machine, "python3.11")
    result = machine.make_venv()
    assert result.returncode == 0, result.stderr
    assert (machine.folder / "venv/made").read_text() == "python3.12\n"


def test_without_root_the_line_to_type_is_printed(machine: Machine) -> None:
    machine.add_script("python3.11", CANNOT_CREATE_VENV)
    machine.add_script("apt-get", "exit 0")
    result = machine.make_venv()
    assert result.returncode == 1
    assert "python3.11 cannot make a virtual environment. As root, please type:" in result.stderr
    assert "apt-get install -y --no-install-recommends python3-venv" in result.stderr


def test_as_root_missing_packages_are_installed(machine: Machine) -> None:
    (machine.path / "id").unlink()
    machine.add_script("id", "echo 0")
    machine.add_script("python3.11", OLD)
    add_python(machine, "later")
    machine.add_script(
        "apt-get",
        f'echo "$@" >> {machine.folder}/calls\nPATH={os.environ["PATH"]}\n'
        f"cp {machine.path}/later {machine.path}/python3",
    )
    result = machine.make_venv()
    assert result.returncode == 0, result.stderr
    assert "There is no Python 3.11 or newer: installing python3 python3-venv" in result.stdout
    calls = (machine.folder / "calls").read_text()
    assert calls == "-qq update\ninstall -y --no-install-recommends python3 python3-venv\n"


@pytest.mark.parametrize(
    ("kernel", "processor", "name", "advice"),
    [
        ("MINGW64_NT-10.0-22631", "x86_64", "Windows", "Use WSL 2"),
        ("FreeBSD", "amd64", "FreeBSD", "docker run"),
        ("Linux", "riscv64", "riscv64", "docker run"),
    ],
)
def test_unsupported_system_is_named_with_an_alternative(
    machine: Machine, kernel: str, processor: str, name: str, advice: str
) -> None:
    add_python(machine, "python3.11")
    machine.set_system(kernel, processor)
    result = machine.make_venv()
    assert result.returncode == 1
    assert "Linux with glibc (x86-64 or arm64) or macOS" in result.stderr
    assert f"this is {name}." in result.stderr
    assert advice in result.stderr
    assert not (machine.folder / "venv").exists()


def test_without_glibc_an_existing_server_or_a_container_is_suggested(machine: Machine) -> None:
    machine.add_script("python3.12", MUSL)
    result = machine.make_venv()
    assert result.returncode == 1
    assert "make run REDIS=redis://127.0.0.1:6379" in result.stderr
    assert "docker run --rm -it -p 3000:3000" in result.stderr


def test_without_glibc_an_existing_server_is_enough(machine: Machine) -> None:
    add_python(machine, "able")
    machine.add_script("python3.12", f'{MUSL}\nexec "{machine.path}/able" "$@"')
    assert machine.make_venv(REDIS="redis://127.0.0.1:6379").returncode == 0


def test_glibc_is_checked_by_the_python_itself() -> None:
    (script,) = re.findall(r"other_libc='(.*?)'", MAKE_VENV.read_text(), re.DOTALL)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    musl = f"import platform; platform.libc_ver = lambda: ('', '')\n{script}"
    assert subprocess.run([sys.executable, "-c", musl], check=False).returncode == 1


def test_without_apt_a_container_or_brew_is_suggested_for_an_old_python(machine: Machine) -> None:
    machine.add_script("python3", OLD)
    result = machine.make_venv()
    assert "There is no Python 3.11 or newer. Install one, or use a container:" in result.stderr
    machine.add_script("brew", "exit 0")
    result = machine.make_venv()
    assert "brew install python@3.13" in result.stderr


def test_a_container_is_suggested_if_packages_bring_an_older_python(machine: Machine) -> None:
    (machine.path / "id").unlink()
    machine.add_script("id", "echo 0")
    machine.add_script("python3", OLD)
    machine.add_script("apt-get", "exit 0")
    result = machine.make_venv()
    assert result.returncode == 1
    assert "Where that brings an older Python, use a container:" in result.stderr
