"""Progress on stderr: stdout is for the table."""

import sys


def tell(line: str) -> None:
    """Write a line at once."""
    sys.stderr.write(f"bench: {line}\n")
    sys.stderr.flush()
