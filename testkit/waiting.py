"""Every wait has an end and says what it waited for."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], what: str, *, seconds: float = 10.0, every: float = 0.02
) -> T:
    """Ask until the answer is true, and return it.

    Raises:
        TimeoutError: it did not become true; the message says what was waited for.
    """
    end = time.monotonic() + seconds
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:g} s still waiting for {what}")
        time.sleep(every)
