"""Wait for a condition, with a limit and a message."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], what: str, *, seconds: float = 10.0, every: float = 0.02
) -> T:
    """Evaluate a condition until it is true, and return its value.

    Raises:
        TimeoutError: it did not become true; the message says what the wait was for.
    """
    end = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:g} s still waiting for {what}")
        time.sleep(every)
