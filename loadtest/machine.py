"""The CPU time of this machine by program. It shows what limits a load that shares it with pods."""

import os
from collections import defaultdict
from pathlib import Path

from perf.procfs import TICKS

LISTED = 10
INTERPRETERS = ("python", "node", "sh", "bash")


def read_cpu_seconds() -> dict[str, float]:
    """Return the CPU seconds of all processes by program."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # Fields 14 and 15: without the time of ended children, which is added all at once.
                ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
                seconds[program((folder / "cmdline").read_bytes())] += sum(map(int, ticks)) / TICKS
            except (OSError, IndexError):
                continue  # the process has ended
    return dict(seconds)


def program(cmdline: bytes) -> str:
    """Return the name of a program; for an interpreter, also that of its script."""
    words = [word.decode(errors="replace") for word in cmdline.split(b"\0") if word]
    if not words:
        return "kernel"
    names = [Path(words[0].split()[0]).name]
    if names[0].rstrip("0123456789.") in INTERPRETERS:
        names += [Path(word).name for word in words[1:] if not word.startswith("-")][:2]
    return " ".join(names)


def cores_used(
    before: dict[str, float], after: dict[str, float], seconds: float
) -> dict[str, float]:
    """Return the cores that each program used, the busiest first."""
    cores = {
        name: round((total - before.get(name, 0.0)) / seconds, 3) for name, total in after.items()
    }
    busiest = sorted(cores.items(), key=lambda core: -core[1])[:LISTED]
    return {name: entry for name, entry in busiest if entry > 0}


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
