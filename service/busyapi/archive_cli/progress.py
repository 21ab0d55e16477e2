"""Progress of long work: one line on stderr, and only if that is a terminal."""

import os
import stat
import sys
import time
from types import TracebackType
from typing import Self

_INTERVAL_SECONDS = 0.2
_MIN_SECONDS = 0.001
_MINUTE, _HOUR = 60, 3600


def count_problems(count: int) -> str:
    """Return the last line of a verification."""
    return f"{count or 'no'} problem{'s' if count > 1 else ''} found"


class Progress:
    """Counts bytes towards a total, and shows them. Use it as a context, which clears the line."""

    def __init__(self, verb: str, total: int, *, stdout_has_data: bool = False) -> None:
        """Prepare. `stdout_has_data`: the command writes data to stdout meanwhile.

        Data and progress must not mix on a terminal. A pipe may also end on a terminal, as in
        `busyapi archive cat | head`. So progress is shown together with data only if stdout is a
        file.
        """
        self._verb, self._total = verb, max(1, total)
        self._done = 0
        self._shown_at = self._started = time.monotonic()
        self._shown = False
        self._is_visible = sys.stderr.isatty() and (not stdout_has_data or _is_stdout_a_file())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def advance(self, count: int) -> None:
        """Count more bytes, and update the line at most every 0.2 seconds."""
        self._done += count
        now = time.monotonic()
        if self._is_visible and now - self._shown_at >= _INTERVAL_SECONDS:
            self._shown_at, self._shown = now, True
            share = min(100, 100 * self._done // self._total)
            rate = self._done / max(now - self._started, _MIN_SECONDS)
            seconds = max(0, self._total - self._done) / rate if rate else 0
            sys.stderr.write(
                f"\r{self._verb}: {self._done / 1e6:,.0f} MB, {share} %, {rate / 1e6:,.1f} MB/s,"
                f" {_format_duration(seconds)} left \x1b[K"
            )
            sys.stderr.flush()

    def clear(self) -> None:
        """Clear the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False


def _format_duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"


def _is_stdout_a_file() -> bool:
    try:
        return stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):
        return False
