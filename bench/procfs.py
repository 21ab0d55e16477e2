"""What the kernel says of a process: resident memory and CPU time (proc(5))."""

import os
import re
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Return the memory that it holds now."""
    return parse_resident(Path(f"/proc/{pid}/status").read_text())


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all its threads, and of its children that have ended."""
    return parse_cpu(Path(f"/proc/{pid}/stat").read_text())


def parse_resident(status: str) -> int:
    """Read it from /proc/PID/status.

    Raises:
        ValueError: the process has ended; its memory is gone.
    """
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    if not found:
        raise ValueError("the process has no memory: it has ended")
    return int(found[1]) * 1024


def parse_cpu(stat: str, ticks: int = TICKS) -> float:
    """Read it from /proc/PID/stat."""
    # The name stands in parentheses and may hold anything, spaces and parentheses included.
    fields = stat.rpartition(")")[2].split()
    # utime, stime, and those of ended children (Valkey rewrites its AOF in one): 14 to 17, from 1.
    return sum(int(each) for each in fields[11:15]) / ticks
