"""An HTTP server with scripted delays and faults."""

import asyncio
from collections.abc import Callable

from testkit.child_process import ManagedResource
from testkit.ports import reserve_port
from testkit.threads import LoopThread

Behave = Callable[[int], tuple[float, bytes]]
"""Return delay and answer for the request with this number. b"" closes the connection."""


def render_answer(status: int, body: bytes) -> bytes:
    """Render an answer."""
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def render_created(number: int) -> bytes:
    """Render the answer to a usage that was stored with this id."""
    return render_answer(201, b'{"id":%d}' % number)


class SlowServer(ManagedResource):
    """A server in a thread, within a `with`."""

    def __init__(self, behave: Behave) -> None:
        self.port = reserve_port()
        self._behave = behave
        self._number = 0
        self._loop = LoopThread(f"slow server {self.port}")

    def start(self) -> None:
        """Listen, and return when the port is open."""
        self._loop.start()
        self._loop.run_step(self._listen)

    def close(self) -> None:
        """Stop listening, and drop connections with delayed answers."""
        self._loop.close()

    async def _listen(self) -> None:
        await asyncio.start_server(self._answer_requests, "127.0.0.1", self.port)

    async def _answer_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.rpartition(b"Content-Length: ")[2]))
                self._number += 1
                delay, answer = self._behave(self._number)
                await asyncio.sleep(delay)
                writer.write(answer)
                if not answer:
                    break
        except asyncio.IncompleteReadError:
            pass
        writer.close()
