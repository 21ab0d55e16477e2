"""A client in a separate process that sends each request right after the previous answer.

A test that measures how long other clients wait must not share an interpreter with it: a thread
would hold the interpreter for milliseconds, as if the server were slow.
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
    """Send messages in turn on each connection. The `with` starts after the first answer.

    Raises:
        TimeoutError: the server has answered no message.
    """
    context = multiprocessing.get_context("spawn")
    answered = context.Event()
    process = context.Process(target=_flood, args=(port, messages, connections, answered))
    process.start()
    try:
        if not answered.wait(START_SECONDS):
            raise TimeoutError(f"no answer on {port}")
        yield
    finally:
        process.kill()
        process.join()


def _flood(port: int, messages: Sequence[bytes], connections: int, answered: Event) -> None:
    for number in range(connections):
        # Each connection begins with another message.
        sequence = cycle([*messages[number:], *messages[:number]])
        threading.Thread(target=_send, args=(port, sequence, answered)).start()


def _send(port: int, messages: Iterator[bytes], answered: Event) -> None:
    with suppress(OSError), RawConnection(port, 60) as client:
        for message in messages:
            client.send(message)
            client.read_answer()
            answered.set()
