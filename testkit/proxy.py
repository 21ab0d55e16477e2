"""A TCP proxy that misbehaves on request, to stand between busyapi and Redis.

It runs an event loop in a thread of its own. Its methods are called from any other thread and
return when what they say is so.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable

from testkit.child_process import Lifetime
from testkit.ports import reserve_port
from testkit.threads import LoopThread

CHUNK_BYTES = 1 << 16
SLOW_CHUNK_BYTES = 1 << 13
"""Of a link with a rate: so that it is shared, and bytes arrive all the time."""

HEAD_BYTES = 4096
"""Of what a client asked, this much is looked at by `lose_answer`."""


class Proxy(Lifetime):
    """Passes bytes between clients of `port` and a server on this machine until told otherwise."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = reserve_port()
        self.latency = 0.0
        """Seconds that every byte is late, each way. It may be set at any time."""
        self.rate = 0
        """Bytes a second that the link passes, each way, all connections together; 0 is any
        number. It may be set at any time."""
        self._free: dict[str, float] = {"ask": 0.0, "answer": 0.0}
        """When the link has passed what was sent so far, each way."""
        self._pairs: set[_Pair] = set()
        self._mute = False
        self._losing: tuple[bytes, ...] = ()
        self._lost = threading.Event()
        self._listener: asyncio.Server | None = None
        self._loop = LoopThread(f"proxy {self.port}")

    @property
    def url(self) -> str:
        """Where a client finds the Redis behind it."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; the server need not run yet."""
        self._loop.start()
        self.accept()

    def close(self) -> None:
        """Reset every connection and end."""
        if self._loop.is_running:
            self.refuse()
            self.reset()
            self._loop.close()

    def accept(self) -> None:
        """Take new connections: so from the start, and again after `refuse`."""
        self._loop.run_step(self._listen)

    def refuse(self) -> None:
        """Take no new connections; those there are stay."""
        self._loop.run_step(self._unlisten)

    def reset(self) -> None:
        """Reset (RST) every connection; the server still gets what has arrived here."""
        self._loop.run_step(self._cut)

    def mute(self) -> None:
        """Pass nothing of what the server says any more, as if it had hung."""
        self._loop.run_step(lambda: self._set_mute(on=True))

    def unmute(self) -> None:
        """Pass answers again. A connection that missed some is reset: it must not get the next."""
        self._loop.run_step(lambda: self._set_mute(on=False))

    def lose_answer(self, to: bytes | tuple[bytes, ...]) -> None:
        """Drop the next answer to a request with (one of) these bytes, and reset its connection."""
        self._lost.clear()
        self._losing = (to,) if isinstance(to, bytes) else to

    def wait_until_lost(self, seconds: float = 10.0) -> None:
        """Wait for what `lose_answer` announced.

        Raises:
            TimeoutError: no such request was answered.
        """
        if not self._lost.wait(seconds):
            raise TimeoutError(f"in {seconds:g} s no answer to {self._losing!r}")

    def hold(self) -> None:
        """Keep what the present connections send from now on; new connections pass."""
        self._loop.run_step(self._hold)

    def release(self) -> None:
        """Pass what was kept, end those connections, return when the server has read it all.

        The server closes a connection when it has done what arrived before the end.
        """
        self._loop.run_step(self._release)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._pairs)

    # From here on everything runs in the proxy's own thread.

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._meet, "127.0.0.1", self.port)

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _cut(self) -> None:
        for pair in list(self._pairs):
            pair.reset()

    def _set_mute(self, *, on: bool) -> None:
        self._mute = on
        for pair in list(self._pairs):
            if pair.missed:
                pair.reset()

    def _hold(self) -> None:
        for pair in self._pairs:
            pair.held = []

    async def _release(self) -> None:
        for pair in [pair for pair in self._pairs if pair.held is not None]:
            pair.server.write(b"".join(pair.held or []))
            pair.server.write_eof()
            await asyncio.wait_for(pair.answered.wait(), 10)

    async def _meet(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(client)
            return
        pair = _Pair(client, server)
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._pass_requests(pair, reader),
                self._pass_answers(pair, answers),
            )
        finally:
            self._pairs.discard(pair)

    async def _pass_requests(self, pair: "_Pair", reader: asyncio.StreamReader) -> None:
        due = await self._pass(reader, pair.server, pair.ask, "ask")
        if pair.held is None:
            asyncio.get_running_loop().call_at(due, pair.server.close)

    async def _pass_answers(self, pair: "_Pair", reader: asyncio.StreamReader) -> None:
        due = await self._pass(reader, pair.client, lambda _: self._admits(pair), "answer")
        pair.answered.set()
        asyncio.get_running_loop().call_at(due, pair.client.close)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        admits: Callable[[bytes], bool],
        way: str,
    ) -> float:
        """Pass bytes one way, each as late as latency and rate say; return when the end is due."""
        loop = asyncio.get_running_loop()
        due = 0.0
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES if not self.rate else SLOW_CHUNK_BYTES):
                if self.rate:
                    self._free[way] = max(loop.time(), self._free[way]) + len(chunk) / self.rate
                    await asyncio.sleep(self._free[way] - loop.time())
                # Later than the bytes before it, also when the latency has just become less.
                due = max(loop.time() + self.latency, due + 1e-6)
                if admits(chunk):
                    loop.call_at(due, writer.write, chunk)
        return max(loop.time() + self.latency, due + 1e-6)

    def _admits(self, pair: "_Pair") -> bool:
        """Say whether an answer may pass."""
        if any(each in pair.asked for each in self._losing):
            self._losing = ()
            pair.reset()
            self._lost.set()
            return False
        pair.missed = self._mute
        pair.asked = b""
        return not self._mute


class _Pair:
    """One client's connection and its own connection to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.asked = b""
        """The head of what the client has sent since an answer was last passed."""
        self.missed = False
        """Whether an answer was dropped: then it must get no later one."""
        self.held: list[bytes] | None = None
        """What `hold` keeps of this connection."""
        self.answered = asyncio.Event()
        """Set when the server has closed the connection."""

    def ask(self, chunk: bytes) -> bool:
        """Remember what was asked, and let it pass if it is not held."""
        if len(self.asked) < HEAD_BYTES:
            self.asked += chunk[:HEAD_BYTES]
        if self.held is None:
            return True
        self.held.append(chunk)
        return False

    def reset(self) -> None:
        """Reset the client, and close the server's side once it has all that was written."""
        _reset(self.client)
        self.server.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST in place of FIN."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
