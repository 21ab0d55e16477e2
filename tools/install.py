"""Install the packages of a lock file with pip, and show the progress.

    python tools/install.py requirements-dev.lock [options of pip install]

It installs into the environment of the interpreter that runs it, which needs only pip.
"""

import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from time import monotonic
from typing import TextIO

# A wheel needs no build, and a lock has the hash of each: nothing else is installed.
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install")
OPTIONS = ("--no-input", "--progress-bar", "off", "--require-hashes", "--only-binary", ":all:")

MEGABYTES = {"requirements.lock": 34, "requirements-dev.lock": 87, "requirements-test.lock": 310}
"""The download of a first installation on Linux, where it is largest."""
SECONDS_PER_MEGABYTE = 0.5
"""With unpacking, on a slow machine with a connection of 40 Mbit/s."""
TAIL_LINES = 12

SYSTEMS = "Linux with glibc 2.28 or newer (x86-64, arm64) and macOS"

_PINNED = re.compile(r"^[\w.-]+==", re.MULTILINE)
_STEP = re.compile(r"(?:Collecting|Requirement already satisfied:|Ignoring) ([\w.-]+)")
_INSTALLING = re.compile(r"Installing collected packages")


class Progress:
    """Shows each step in one line of a terminal; elsewhere, only the phases."""

    def __init__(self, total: int, out: TextIO) -> None:
        self.count = 0
        self._total = total
        self._out = out
        self._is_live = out.isatty()

    def read(self, line: str) -> None:
        """Show the step in a line of pip's output."""
        if step := _STEP.match(line):
            self.count = min(self.count + 1, self._total)
            if self._is_live:
                self._write(f"\r\x1b[K  {self.count} of {self._total}: {step[1]}")
        elif _INSTALLING.match(line):
            start = "\r\x1b[K" if self._is_live else ""
            self._write(f"{start}  all {self._total} downloaded; unpacking them")
            if not self._is_live:
                self._write("\n")

    def clear(self) -> None:
        """Remove the line of a terminal."""
        if self._is_live:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def announce(lock: Path, total: int, venv: Path) -> str:
    """Return the line that announces the packages, the download and the time."""
    megabytes = MEGABYTES.get(str(lock))
    line = f"Installing {total} packages of {lock} into {venv}"
    if megabytes is None:
        return f"{line}."
    seconds = megabytes * SECONDS_PER_MEGABYTE
    bound = "a minute" if seconds <= 60 else f"{seconds / 60:.0f} minutes"  # noqa: PLR2004
    return f"{line}: up to {megabytes} MB to download, usually less than {bound}."


def follow(lines: Iterable[str], progress: Progress) -> list[str]:
    """Show the progress of pip; return the last lines of its output."""
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    for line in lines:
        tail.append(line.rstrip())
        progress.read(line)
    progress.clear()
    return list(tail)


def main(lock: str, *options: str) -> int:
    """Install; return pip's exit code."""
    total = len(_PINNED.findall(Path(lock).read_text(encoding="utf-8")))
    prefix = Path(sys.prefix)
    venv = prefix.relative_to(Path.cwd()) if prefix.is_relative_to(Path.cwd()) else prefix
    out = sys.stdout
    out.write(announce(Path(lock), total, venv) + "\n")
    out.flush()
    began = monotonic()
    with subprocess.Popen(
        [*PIP, *OPTIONS, "-r", lock, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pip:
        tail = follow(pip.stdout or (), Progress(total, out))
    if pip.returncode:
        out.write("\n".join(["pip failed:", *(f"    {line}" for line in tail)]) + "\n")
        out.write(
            f"The packages exist for {SYSTEMS}. If the network failed, run the same command again:"
            " downloaded packages are kept.\n"
        )
        return pip.returncode
    out.write(f"Installed in {monotonic() - began:.0f} s.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
