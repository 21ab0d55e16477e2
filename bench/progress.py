"""Progress on stderr: stdout is for the table."""

import sys


def print_progress(line: str) -> None:
    """Write a line to stderr at once."""
    sys.stderr.write(f"bench: {line}\n")
    sys.stderr.flush()
