"""Installation of a lock file: the output, and the options of pip."""

import io
import subprocess
import sys
from pathlib import Path

from testkit.terminal import Terminal
from tools.install import MEGABYTES, OPTIONS, SYSTEMS, Progress, announce, follow

ROOT = Path(__file__).parents[2]
PIP = """\
Ignoring async-timeout: markers 'python_full_version < "3.11.3"' don't match your environment
Collecting aiofiles==25.1.0 (from -r requirements-dev.lock (line 1))
  Downloading aiofiles-25.1.0-py3-none-any.whl (14 kB)
Requirement already satisfied: idna==3.20 in ./.venv/lib/python3.11/site-packages
Installing collected packages: aiofiles
Successfully installed aiofiles-25.1.0
"""


def test_each_package_is_counted_in_one_line_of_a_terminal() -> None:
    terminal = Terminal()
    tail = follow(PIP.splitlines(keepends=True), Progress(3, terminal))
    steps = terminal.getvalue().split("\r\x1b[K")
    assert steps == [
        "",
        "  1 of 3: async-timeout",
        "  2 of 3: aiofiles",
        "  3 of 3: idna",
        "  all 3 downloaded; unpacking them",
        "",
    ]
    assert tail[-1] == "Successfully installed aiofiles-25.1.0"


def test_a_file_gets_a_line_for_a_phase() -> None:
    out = io.StringIO()
    follow(PIP.splitlines(keepends=True), Progress(3, out))
    assert out.getvalue() == "  all 3 downloaded; unpacking them\n"


def test_size_and_time_are_announced_for_each_lock_of_the_project() -> None:
    for name in MEGABYTES:
        assert (ROOT / name).exists()
    line = announce(Path("requirements-dev.lock"), 30, Path(".venv"))
    assert line.startswith("Installing 30 packages of requirements-dev.lock into .venv: up to ")
    assert line.endswith(" MB to download, usually less than a minute.")
    assert announce(Path("requirements-test.lock"), 30, Path(".venv")).endswith("than 3 minutes.")
    assert (
        announce(Path("other.lock"), 1, Path("x")) == "Installing 1 packages of other.lock into x."
    )


def test_only_wheels_with_a_known_hash_are_installed() -> None:
    assert {"--require-hashes", "--only-binary", ":all:"} <= set(OPTIONS)


def test_failure_shows_the_end_of_pips_output_and_the_supported_systems(
    tmp_path: Path,
) -> None:
    lock = tmp_path / "bad.lock"
    lock.write_text(f"busyapi-no-such-package==1.0 --hash=sha256:{'0' * 64}\n")
    process = subprocess.run(
        [sys.executable, ROOT / "tools" / "install.py", lock, "--no-index"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 1
    assert "    ERROR: No matching distribution found for busyapi-no-such" in process.stdout
    assert f"The packages exist for {SYSTEMS}" in process.stdout
