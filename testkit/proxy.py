"""A TCP proxy between busyapi and Redis that injects network faults.

It runs an event loop in its own thread. Other threads call its methods, which return when their
effect is complete.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Literal

from testkit.child_process import ManagedResource
from testkit.ports import reserve_port
from testkit.threads import LoopThread

Direction = Literal["ask", "answer"]
"""From the client to the server, or from the server to the client."""

CHUNK_BYTES = 1 << 16
SLOW_CHUNK_BYTES = 1 << 13
"""With a rate. Small chunks share the link and keep bytes arriving all the time."""

HEAD_BYTES = 4096
"""`lose_answer` searches the first bytes of a request, this many."""

SERVER_WORDS = (b"REPLCONF", b"sentinel-")
"""What replicas and Sentinels send first on each connection, and clients never do."""


class Proxy(ManagedResource):
    """A proxy from `port` to a server on this machine. It passes all bytes until a method call."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = reserve_port()
        self.latency = 0.0
        """Seconds by which every byte is delayed, each way. A test can set it at any time."""
        self.rate = 0
        """Bytes a second of all connections together, each way; 0 means no limit. A test can set
        it at any time."""
        self._free: dict[Direction, float] = {"ask": 0.0, "answer": 0.0}
        """When the link has passed all bytes so far, each way."""
        self._pairs: set[_Pair] = set()
        self._mute = False
        self._cut: frozenset[Direction] = frozenset()
        self._losing: tuple[bytes, ...] = ()
        self._refuse_after_loss = False
        self._lost = threading.Event()
        self._listener: asyncio.Server | None = None
        self._loop = LoopThread(f"proxy {self.port}")

    @property
    def url(self) -> str:
        """The URL with which a client reaches Redis through the proxy."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen. The server need not run yet."""
        self._loop.start()
        self.accept()

    def close(self) -> None:
        """Reset every connection and end."""
        if self._loop.is_running:
            self.refuse()
            self.reset()
            self._loop.close()

    def accept(self) -> None:
        """Accept new connections, after `start` or again after `refuse`."""
        self._loop.run_step(self._listen)

    def refuse(self) -> None:
        """Refuse new connections. Existing ones stay open."""
        self._loop.run_step(self._unlisten)

    def reset(self) -> None:
        """Reset (RST) every connection. The server still gets the bytes that arrived here."""
        self._loop.run_step(self._reset)

    def mute(self) -> None:
        """Drop all answers from now on, as if the server hung."""
        self._loop.run_step(lambda: self._set_mute(on=True))

    def unmute(self) -> None:
        """Pass answers again. A connection that lost some is reset: it must not get later ones."""
        self._loop.run_step(lambda: self._set_mute(on=False))

    def cut_servers_off(self, *directions: Direction) -> None:
        """Drop what replicas and Sentinels send, or what they get. Clients notice nothing."""
        self._loop.run_step(lambda: self._set_cut(frozenset(directions)))

    def reconnect_servers(self) -> None:
        """End `cut_servers_off`. A connection that lost bytes is reset."""
        self._loop.run_step(lambda: self._set_cut(frozenset()))

    def lose_answer(self, to: bytes | tuple[bytes, ...], *, then_refuse: bool = False) -> None:
        """Drop the next answer to a request with one of these texts, and reset its connection.

        `then_refuse`: refuse new connections from the same moment on, before the client can connect
        again.
        """
        self._lost.clear()
        self._refuse_after_loss = then_refuse
        self._losing = (to,) if isinstance(to, bytes) else to

    def wait_until_lost(self, seconds: float = 10.0) -> None:
        """Wait until `lose_answer` has dropped an answer.

        Raises:
            TimeoutError: no such request was answered.
        """
        if not self._lost.wait(seconds):
            raise TimeoutError(f"in {seconds:g} s no answer to {self._losing!r}")

    def hold(self) -> None:
        """Hold back the bytes that present connections send from now on. New connections pass."""
        self._loop.run_step(self._hold_back)

    def release(self) -> None:
        """Pass the held bytes, end those connections, and return when the server has read it all.

        The server closes a connection after it has executed all that arrived before the end.
        """
        self._loop.run_step(self._release)

    @property
    def connections(self) -> int:
        """The number of connected clients."""
        return len(self._pairs)

    # Everything below runs in the proxy's own thread.

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept_client, "127.0.0.1", self.port)

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _reset(self) -> None:
        for pair in list(self._pairs):
            pair.reset()

    def _set_mute(self, *, on: bool) -> None:
        self._mute = on
        for pair in list(self._pairs):
            if pair.missed:
                pair.reset()

    def _set_cut(self, directions: frozenset[Direction]) -> None:
        self._cut = directions
        for pair in [pair for pair in self._pairs if pair.is_cut and not directions]:
            pair.reset()

    def _is_dropped(self, pair: "_Pair", direction: Direction) -> bool:
        is_dropped = pair.is_of_server and direction in self._cut
        pair.is_cut = pair.is_cut or is_dropped
        return is_dropped

    def _hold_back(self) -> None:
        for pair in self._pairs:
            pair.held = []

    async def _release(self) -> None:
        for pair in [pair for pair in self._pairs if pair.held is not None]:
            pair.server.write(b"".join(pair.held or []))
            pair.server.write_eof()
            await asyncio.wait_for(pair.answered.wait(), 10)

    async def _accept_client(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _abort(client)
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
        due = await self._pass(
            reader, pair.server, lambda it: self._admits_request(pair, it), "ask"
        )
        if pair.held is None:
            asyncio.get_running_loop().call_at(due, pair.server.close)

    async def _pass_answers(self, pair: "_Pair", reader: asyncio.StreamReader) -> None:
        due = await self._pass(reader, pair.client, lambda _: self._admits_answer(pair), "answer")
        pair.answered.set()
        asyncio.get_running_loop().call_at(due, pair.client.close)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        admits: Callable[[bytes], bool],
        way: Direction,
    ) -> float:
        """Pass bytes one way, delayed by latency and rate. Return when the end is due."""
        loop = asyncio.get_running_loop()
        due = 0.0
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES if not self.rate else SLOW_CHUNK_BYTES):
                if self.rate:
                    self._free[way] = max(loop.time(), self._free[way]) + len(chunk) / self.rate
                    await asyncio.sleep(self._free[way] - loop.time())
                # After the bytes before it, even if the latency has just decreased.
                due = max(loop.time() + self.latency, due + 1e-6)
                if admits(chunk):
                    loop.call_at(due, writer.write, chunk)
        return max(loop.time() + self.latency, due + 1e-6)

    def _admits_request(self, pair: "_Pair", chunk: bytes) -> bool:
        """Return whether a client's bytes may pass."""
        return pair.record_request(chunk) and not self._is_dropped(pair, "ask")

    def _admits_answer(self, pair: "_Pair") -> bool:
        """Return whether an answer may pass."""
        if self._is_dropped(pair, "answer"):
            return False
        if any(text in pair.asked for text in self._losing):
            self._losing = ()
            if self._refuse_after_loss:
                self._unlisten()
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
        """The first bytes that the client has sent since the last answer passed."""
        self.missed = False
        """Whether an answer was dropped. If so, the client must get no later one."""
        self.is_of_server = False
        """Whether a replica or a Sentinel is the client."""
        self.is_cut = False
        """Whether bytes were dropped by `cut_servers_off`."""
        self.held: list[bytes] | None = None
        """The bytes that `hold` holds back, or None."""
        self.answered = asyncio.Event()
        """Set when the server has closed the connection."""

    def record_request(self, chunk: bytes) -> bool:
        """Record a client's bytes, and return whether they may pass."""
        self.is_of_server = self.is_of_server or any(word in chunk for word in SERVER_WORDS)
        if len(self.asked) < HEAD_BYTES:
            self.asked += chunk[:HEAD_BYTES]
        if self.held is None:
            return True
        self.held.append(chunk)
        return False

    def reset(self) -> None:
        """Reset the client, and close the server's side once it has all written bytes."""
        _abort(self.client)
        self.server.close()


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
