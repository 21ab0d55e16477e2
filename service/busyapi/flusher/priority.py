"""The processes that a flusher starts beside its own work, and their priority."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from pathlib import Path

_FIRST_TO_KILL = "1000"
"""The highest value of /proc/PID/oom_score_adj."""


async def start_worker(module: str, *arguments: str, niceness: int) -> Process:
    """Start a module that answers on stdout what it is asked on stdin.

    Raises:
        OSError: no process can be started.
    """
    process = await asyncio.create_subprocess_exec(
        # -P: a file in the working directory must not be imported as a module.
        *(sys.executable, "-P", "-m", module, *arguments),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,  # a stack trace could quote a usage
        env={},  # it needs no setting, and no password
    )
    lower_priority(process.pid, niceness)
    return process


def lower_priority(pid: int, niceness: int) -> None:
    """Lower the priority of a process, and let a lack of memory end it first."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
        Path(f"/proc/{pid}/oom_score_adj").write_text(_FIRST_TO_KILL)
