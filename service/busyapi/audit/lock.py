"""The lock of a trail: one process appends at a time.

It is held for one append only, so that commands can record what they export beside a flusher.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from busyapi.archive.lock import try_flock
from busyapi.archive.paths import LOCK_NAME
from busyapi.audit.files import give_to_owner
from busyapi.errors import ArchiveLocked

LOCK_SECONDS = 2.0
"""How long to wait for another process, which holds the lock for one write and one fsync."""
_POLL_SECONDS = 0.005


@contextmanager
def lock_trail(folder: Path) -> Iterator[None]:
    """Hold the lock.

    Raises:
        ArchiveLocked: another process has held it all the time.
    """
    fd = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        give_to_owner(fd, folder)
        _acquire(fd, folder)
        yield
    finally:
        os.close(fd)


def _acquire(fd: int, folder: Path) -> None:
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            # Without flock, two writers at once break the chain, which `audit verify` reports.
            try_flock(fd)
        except BlockingIOError:
            if time.monotonic() > end:
                raise ArchiveLocked(f"another process writes {folder}") from None
            time.sleep(_POLL_SECONDS)
        else:
            return
