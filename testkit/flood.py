"""A client that sends as fast as it is answered, in a process of its own.

A test that measures what others wait shares no interpreter with it: a thread beside the test would
take the interpreter from it for milliseconds, as if the server were slow.
"""

import multiprocessing
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from multiprocessing.synchronize import Event

from testkit.api_client import RawConnection

START_SECONDS = 30.0


@contextmanager
def run_flood(port: int, messages: Sequence[bytes], connections: int) -> Iterator[None]:
    """Send messages one after the other on each of some connections, from the first answer on.

    Raises:
        TimeoutError: nothing was answered.
    """
    context = multiprocessing.get_context("spawn")
    answered = context.Event()
    process = context.Process(target=_flood, args=(port, messages, connections, answered))
    process.start()
    try:
        if not answered.wait(START_SECONDS):
            raise TimeoutError(f"nothing was answered on {port}")
        yield
    finally:
        process.kill()
        process.join()


def _flood(port: int, messages: Sequence[bytes], connections: int, answered: Event) -> None:
    for number in range(connections):
        # Each begins with another one.
        turns = cycle([*messages[number:], *messages[:number]])
        threading.Thread(target=_send, args=(port, turns, answered)).start()


def _send(port: int, messages: Iterator[bytes], answered: Event) -> None:
    with suppress(OSError), RawConnection(port, 60) as client:
        for message in messages:
            client.send(message)
            client.read_answer()
            answered.set()
