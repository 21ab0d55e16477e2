"""The process in which a flusher verifies its archive."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testkit.processes import Flusher
from testkit.waiting import wait_until


def find_verification(flusher: Flusher) -> int:
    """Return the process id of a verification that runs, 0 if there is none."""
    for children in Path(f"/proc/{flusher.pid}/task").glob("*/children"):
        with suppress(OSError):
            for pid in children.read_text().split():
                if b"verify" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
    return 0


@contextmanager
def pause_verification(flusher: Flusher) -> Iterator[int]:
    """Pause the next verification until the end of the `with`, as a disk that hangs does."""

    def pause() -> int:
        if pid := find_verification(flusher):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                return pid
        return 0

    pid = wait_until(pause, "a verification", seconds=30, every=0.005)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
