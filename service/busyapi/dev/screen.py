"""Output: lines that stay and, on a terminal, one status line below them."""

import io
import shutil
from typing import TextIO

CLEAR = "\r\x1b[K"


class Screen:
    """Prints to a terminal or a file. A terminal that is closed must not disturb the stop."""

    def __init__(self, out: TextIO) -> None:
        self.live = out.isatty()
        """On a terminal a status line replaces the one before."""
        if isinstance(out, io.TextIOWrapper):
            # The status has a dot that a terminal in a single-byte locale may not have.
            out.reconfigure(errors="replace")
        self._out = out
        self._status = ""

    def print_lines(self, text: str) -> None:
        """Print lines that stay."""
        self._write(f"{CLEAR}{text}\n{self._status}" if self.live else f"{text}\n")

    def status(self, text: str) -> None:
        """Show a status: in place on a terminal, as a line that stays elsewhere."""
        if not self.live:
            self.print_lines(text)
            return
        # A status line that wraps cannot be cleared.
        self._status = text[: shutil.get_terminal_size().columns - 1]
        self._write(CLEAR + self._status)

    def clear_status(self) -> None:
        """Remove the status line."""
        if self.live:
            self.status("")

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except OSError:
            pass
