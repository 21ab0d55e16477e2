"""Standard output of the commands: a failed write names the file that the output goes to."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class OutputFailed(OSError):
    """Standard output cannot be written. The error names the file."""


def write_output(data: str | bytes) -> None:
    """Write text or bytes to standard output; one command writes either.

    Raises:
        BrokenPipeError: the reader has closed the pipe.
        OutputFailed: it cannot be written.
    """
    with _named_errors():
        if isinstance(data, str):
            sys.stdout.write(data)
        else:
            sys.stdout.buffer.write(data)


def flush_output() -> None:
    """Write what is buffered; raises as `write_output` does."""
    with _named_errors():
        sys.stdout.flush()


def discard_output() -> None:
    """Discard what is buffered and what follows: Python would try to write it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(error.errno, error.strerror, _describe_output()) from None


def _describe_output() -> str:
    """Return the path of the file, or "standard output" where the system does not know it."""
    try:
        path = str(Path("/proc/self/fd/1").readlink())
    except OSError:
        return "standard output"
    return path if path.startswith("/") else "standard output"
