"""One connection to one Redis server, without a hidden retry.

redis-py by default repeats a command that failed, and a repeated write is a second write; its
streams also cost the commit path more than the commands do. A connection sends what it is given
once, in one packet, and after any failure it is closed: what was under way is unknown, and the
caller says so. Only this folder imports redis or hiredis.

    call ──packed, one write──> server
    future <──the last of its replies── reader, fed by the event loop
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import hiredis

from busyapi.errors import RedisUnavailable
from busyapi.stream.scripts import ALL_SCRIPTS, Script

CONNECT_TIMEOUT_SECONDS = 2.0
REPLY_TIMEOUT_SECONDS = 5.0
"""A server that is silent for longer is taken for gone; what was sent to it is unknown."""
LARGE_REPLY_TIMEOUT_SECONDS = 60.0
"""A reply that is large for its link may take longer as long as bytes of it arrive, but no longer
than this."""

Command = tuple[Any, ...]


class ServerError(Exception):
    """An error reply: the server refused one command. `code` is its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.split(" ", 1)[0]


class Login(NamedTuple):
    """What a server is told first. Without a username the password is the default user's."""

    username: str
    password: str


class _ReplyProtocol(asyncio.Protocol):
    """Collects the replies to what was sent last."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader = hiredis.Reader(replyError=ServerError)
        self._replies: list[Any] = []
        self._expected = 0
        self._future: asyncio.Future[list[Any]] | None = None
        self.transport: asyncio.Transport | None = None
        self.closed_reason = ""
        """Why there is no transport any more."""
        self.on_bytes: Callable[[], None] | None = None
        """Called when bytes have arrived."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def expect(self, replies: int) -> asyncio.Future[list[Any]]:
        """Give the future of that many replies, from now on."""
        if self._future:
            raise RuntimeError("two tasks share a connection")
        self._replies, self._expected = [], replies
        self._future = self._loop.create_future()
        return self._future

    def data_received(self, data: bytes) -> None:
        if self.on_bytes:
            self.on_bytes()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._replies.append(reply)
        except hiredis.ProtocolError:
            self.fail("ProtocolError")
            return
        if len(self._replies) < self._expected:
            return
        if self._future is None or len(self._replies) > self._expected:
            # Such as "too many clients", which a server says and hangs up.
            said = self._replies[-1] if self._replies else None
            self.fail(str(said) if isinstance(said, ServerError) else "it spoke unasked")
            return
        answer, self._future = self._future, None
        if not answer.done():
            answer.set_result(self._replies)

    def connection_lost(self, exc: Exception | None) -> None:
        # A server that hangs up may have said why instead of a reply.
        said = self._replies[-1] if self._future and self._replies else None
        closed = str(said) if isinstance(said, ServerError) else "it closed the connection"
        self.fail(type(exc).__name__ if exc else closed)

    def fail(self, why: str) -> None:
        """Close; who waits is told."""
        transport, self.transport = self.transport, None
        if transport:
            self.closed_reason = why
            transport.abort()
        answer, self._future = self._future, None
        if answer and not answer.done():
            answer.set_exception(ConnectionError(why))
            answer.exception()  # marked as seen: the waiter may have been cancelled


class RedisConnection:
    """A connection. Calls must not overlap: one task at a time owns it."""

    def __init__(self, replies: _ReplyProtocol, address: str) -> None:
        self._replies = replies
        self.address = address

    @classmethod
    async def open(
        cls, host: str, port: int, *, login: Login | None, context: ssl.SSLContext | None
    ) -> "RedisConnection":
        """Connect, over TLS with a context, and log in.

        Raises:
            RedisUnavailable: it cannot be reached, or the login is refused.
        """
        address = f"{host}:{port}"
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                _, replies = await loop.create_connection(
                    partial(_ReplyProtocol, loop), host, port, ssl=context
                )
        except (OSError, TimeoutError, UnicodeError) as error:
            raise RedisUnavailable(
                f"no connection to Redis at {address}: {_describe_failure(error)}"
            ) from None
        connection = cls(replies, address)
        if replies.transport:
            # A server whose machine is gone says nothing, and an idle committer sends nothing.
            tcp_socket = replies.transport.get_extra_info("socket")
            tcp_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if login:
            await connection._log_in(login)
        return connection

    async def _log_in(self, login: Login) -> None:
        words = [login.username, login.password] if login.username else [login.password]
        (reply,) = await self.pipeline(("AUTH", *words), timeout_seconds=CONNECT_TIMEOUT_SECONDS)
        if isinstance(reply, ServerError):
            await self.close()
            # A full server answers whatever comes first with "max number of clients reached".
            why = "the user or password" if _is_login_error(reply) else f"the login: {reply}"
            raise RedisUnavailable(f"Redis at {self.address} refuses {why}")

    @property
    def is_closed(self) -> bool:
        """Whether it is of no more use."""
        return self._replies.transport is None

    async def load_scripts(self) -> None:
        """Load every script; they are gone with a restart of the server.

        Raises:
            RedisUnavailable: the server refuses them.
        """
        for reply in await self.pipeline(
            *(("SCRIPT", "LOAD", each.source) for each in ALL_SCRIPTS)
        ):
            if isinstance(reply, ServerError):
                await self.close()
                raise RedisUnavailable(f"Redis at {self.address} takes no scripts: {reply}")

    async def pipeline(
        self, *commands: Command, timeout_seconds: float = REPLY_TIMEOUT_SECONDS
    ) -> list[Any]:
        """Send commands in one go; give each one's reply, a `ServerError` where it was refused.

        Raises:
            RedisUnavailable: the connection failed. What was sent may or may not have been done.
        """
        return await self.wait_replies(self.send(commands), timeout_seconds=timeout_seconds)

    def send(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Send commands in one go, now; `wait_replies` must be awaited for the replies.

        Raises:
            RedisUnavailable: there is no connection; nothing was sent.
        """
        transport = self._replies.transport
        if transport is None or transport.is_closing():
            self._replies.fail("it is closing")
            raise RedisUnavailable(
                f"no connection to Redis at {self.address}: {self._replies.closed_reason}"
            )
        answer = self._replies.expect(len(commands))
        transport.write(b"".join(map(hiredis.pack_command, commands)))
        return answer

    async def wait_replies(
        self,
        future: asyncio.Future[list[Any]],
        *,
        timeout_seconds: float = REPLY_TIMEOUT_SECONDS,
        large: bool = False,
    ) -> list[Any]:
        """Wait for the replies to what was sent last; raises as `pipeline` does.

        Of a large reply `timeout_seconds` are those without any byte of it.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_seconds) as limit:
                if large:
                    end = loop.time() + LARGE_REPLY_TIMEOUT_SECONDS
                    self._replies.on_bytes = lambda: limit.reschedule(
                        min(loop.time() + timeout_seconds, end)
                    )
                replies = await future
        except (ConnectionError, TimeoutError) as error:
            await self.close()
            raise RedisUnavailable(
                f"Redis at {self.address}: {str(error) or 'no answer'}"
            ) from None
        except BaseException:
            # Cancelled between a command and its reply: the next caller would read it.
            await self.close()
            raise
        finally:
            self._replies.on_bytes = None
        if isinstance(replies[0], ServerError) and replies[0].code == "NOAUTH":
            # Nobody logged in, because no password was given.
            await self.close()
            raise RedisUnavailable(f"Redis at {self.address} refuses the user or password")
        return replies

    async def execute(
        self, *command: Any, timeout_seconds: float = REPLY_TIMEOUT_SECONDS, large: bool = False
    ) -> Any:
        """Send one command; for `large` see `wait_replies`.

        Raises:
            RedisUnavailable: as for `pipeline`.
            ServerError: the server refused it.
        """
        answer = self.send([command])
        (reply,) = await self.wait_replies(answer, timeout_seconds=timeout_seconds, large=large)
        if isinstance(reply, ServerError):
            raise reply
        return reply

    async def close(self) -> None:
        """Close at once; never raises."""
        self._replies.fail("closed")


def _is_login_error(refused: ServerError) -> bool:
    return refused.code in {"WRONGPASS", "NOAUTH"} or "AUTH" in str(refused)


def _describe_failure(error: BaseException) -> str:
    """Name a failure; of a certificate, also what is wrong with it."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is refused ({cause.verify_message})"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def make_evalsha(script: Script, keys: Sequence[str], *arguments: Any) -> Command:
    """Make the command that runs a script."""
    return ("EVALSHA", script.sha1, len(keys), *keys, *arguments)
