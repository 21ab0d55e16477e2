"""Progress of long work: one line on stderr, and only if that is a terminal."""

import sys
import time

_INTERVAL_SECONDS = 0.2


class Progress:
    """Counts bytes towards a total, and shows them."""

    def __init__(self, verb: str, total: int) -> None:
        self._verb, self._total = verb, max(1, total)
        self._done = 0
        self._shown_at = time.monotonic()
        self._shown = False
        self._is_terminal = sys.stderr.isatty()

    def advance(self, count: int) -> None:
        """Count more bytes, and update the line at most every 0.2 seconds."""
        self._done += count
        if self._is_terminal and time.monotonic() - self._shown_at >= _INTERVAL_SECONDS:
            self._shown_at = time.monotonic()
            self._shown = True
            share = min(100, 100 * self._done // self._total)
            sys.stderr.write(f"\r{self._verb}: {self._done / 1e6:,.0f} MB, {share} % ")
            sys.stderr.flush()

    def clear(self) -> None:
        """Clear the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
