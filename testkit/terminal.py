"""A text stream that claims to be a terminal."""

import io


class Terminal(io.StringIO):
    """An input with typed lines, or an output to examine."""

    def isatty(self) -> bool:
        """Return True, as a terminal does."""
        return True
