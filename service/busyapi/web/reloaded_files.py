"""A value that is read from files, and read again when they change.

Kubernetes replaces the files of a mounted Secret while the process runs. A change is seen at the
next use, at most once per second. Files that cannot be used leave the last good value in force.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Generic, TypeVar

import structlog

from busyapi.errors import ConfigError

log = structlog.get_logger()

CHECK_INTERVAL_SECONDS = 1.0

T = TypeVar("T")


class ReloadedFiles(Generic[T]):
    """A value from files."""

    def __init__(self, files: Sequence[str], load: Callable[[], T]) -> None:
        """Load the value; `load` raises ConfigError if the files are of no use.

        Raises:
            ConfigError: of `load`.
        """
        self._files = [Path(file) for file in files]
        self._load = load
        self._next_check = monotonic() + CHECK_INTERVAL_SECONDS
        self._logged = ""
        self._signature = self._read_signature()
        self._value = load()

    @property
    def value(self) -> T:
        """The value of the files as they are now, or of the last ones that could be used."""
        now = monotonic()
        if now >= self._next_check:
            self._next_check = now + CHECK_INTERVAL_SECONDS
            self._reload_if_changed()
        return self._value

    def _reload_if_changed(self) -> None:
        # Before the files are read: what changes meanwhile is loaded at the next check.
        signature = self._read_signature()
        if signature == self._signature:
            return
        try:
            self._value = self._load()
        except ConfigError as error:
            # The other file of a pair may not be replaced yet: try again at the next check.
            if str(error) != self._logged:
                log.warning("files_not_reloaded", detail=str(error))
            self._logged = str(error)
            return
        self._signature, self._logged = signature, ""
        log.info("files_reloaded", files=[str(file) for file in self._files])

    def _read_signature(self) -> list[tuple[int, int, int]]:
        return [_sign(file) for file in self._files]


def _sign(file: Path) -> tuple[int, int, int]:
    try:
        status = file.stat()
    except OSError:
        return 0, 0, 0
    return status.st_ino, status.st_size, status.st_mtime_ns
