"""The priority of the processes that a flusher starts."""

import os
from contextlib import suppress
from pathlib import Path

_FIRST_TO_KILL = "1000"
"""The highest value of /proc/PID/oom_score_adj."""


def lower_priority(pid: int, niceness: int) -> None:
    """Lower the priority of a process, and let a lack of memory end it first."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
        Path(f"/proc/{pid}/oom_score_adj").write_text(_FIRST_TO_KILL)
