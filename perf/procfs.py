"""Memory and CPU time of a process and its descendants, from proc(5)."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> Iterator[int]:
    """Yield all descendants of a process; one that ends meanwhile may be missing."""
    with suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from descendants(int(child))


def resident_bytes(pid: int) -> int:
    """Return the memory of a process and its descendants. Shared memory counts for each."""
    total = parse_resident(Path(f"/proc/{pid}/status").read_text())
    for descendant in descendants(pid):
        with suppress(FileNotFoundError, ValueError):
            total += parse_resident(Path(f"/proc/{descendant}/status").read_text())
    return total


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, its descendants, and children that have ended."""
    seconds = parse_cpu(Path(f"/proc/{pid}/stat").read_text())
    for descendant in descendants(pid):
        with suppress(FileNotFoundError):
            seconds += parse_cpu(Path(f"/proc/{descendant}/stat").read_text())
    return seconds


def waiting_seconds(pid: int) -> float:
    """Return for how long threads of a process were ready to run and had no core."""
    seconds = 0.0
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            seconds += parse_waiting((task / "schedstat").read_text())
    return seconds


def machine_seconds() -> tuple[float, float]:
    """Return the CPU time of all programs, and what the hypervisor took from this machine."""
    return parse_machine(Path("/proc/stat").read_text())


def pin(pid: int, core: int) -> None:
    """Pin all threads of a process and its descendants to a core. New threads inherit it."""
    for entry in [pid, *descendants(pid)]:
        for task in Path(f"/proc/{entry}/task").iterdir():
            os.sched_setaffinity(int(task.name), {core})


def parse_resident(status: str) -> int:
    """Read the resident memory from /proc/PID/status.

    Raises:
        ValueError: The process has ended and has no memory.
    """
    match = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    if not match:
        raise ValueError("the process has no memory: it has ended")
    return int(match[1]) * 1024


def parse_cpu(stat: str, ticks: int = TICKS) -> float:
    """Read the CPU time from /proc/PID/stat."""
    # The name is in parentheses and may contain spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    # utime, stime, and those of ended children (Valkey rewrites its AOF in one): 14 to 17, from 1.
    return sum(int(field) for field in fields[11:15]) / ticks


def parse_waiting(schedstat: str) -> float:
    """Read the wait for a core from /proc/PID/schedstat."""
    return int(schedstat.split()[1]) / 1e9


def parse_machine(stat: str, ticks: int = TICKS) -> tuple[float, float]:
    """Read the CPU time of all programs, and the stolen time, from /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.split()[1:9])
    return (user + nice + system + irq + softirq) / ticks, steal / ticks
