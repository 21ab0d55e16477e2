"""What a person sees: lines that stay and, on a terminal, one status line below them."""

import shutil
from typing import TextIO

CLEAR = "\r\x1b[K"


class Screen:
    """Prints. A terminal that is closed while we run must not keep us from stopping well."""

    def __init__(self, out: TextIO) -> None:
        self.live = out.isatty()
        """Whether a status replaces the one before."""
        self._out = out
        self._status = ""

    def say(self, text: str) -> None:
        """Print lines that stay."""
        self._write(f"{CLEAR}{text}\n{self._status}" if self.live else f"{text}\n")

    def status(self, text: str) -> None:
        """Show how things are: in place on a terminal, as a line elsewhere."""
        if not self.live:
            self.say(text)
            return
        # A status that wraps could not be cleared.
        self._status = text[: shutil.get_terminal_size().columns - 1]
        self._write(CLEAR + self._status)

    def no_status(self) -> None:
        """Take the status line away."""
        if self.live:
            self.status("")

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except OSError:
            pass
