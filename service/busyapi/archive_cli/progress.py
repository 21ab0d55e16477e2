"""How far long work has come: one line on stderr, and only where a person sees it."""

import sys
import time

_INTERVAL_SECONDS = 0.2


class Progress:
    """Counts bytes towards a total."""

    def __init__(self, verb: str, total: int) -> None:
        self._verb, self._total = verb, max(1, total)
        self._done = 0
        self._shown_at = time.monotonic()
        self._shown = False
        self._wanted = sys.stderr.isatty()

    def advance(self, count: int) -> None:
        """Count some more, and show it now and then."""
        self._done += count
        if self._wanted and time.monotonic() - self._shown_at >= _INTERVAL_SECONDS:
            self._shown_at = time.monotonic()
            self._shown = True
            share = min(100, 100 * self._done // self._total)
            sys.stderr.write(f"\r{self._verb}: {self._done / 1e6:,.0f} MB, {share} % ")
            sys.stderr.flush()

    def clear(self) -> None:
        """Wipe the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
