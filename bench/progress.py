"""What goes on, on stderr: stdout is for the table."""

import sys


def tell(line: str) -> None:
    """Say it at once."""
    sys.stderr.write(f"bench: {line}\n")
    sys.stderr.flush()
