"""One connection to one Redis server, without hidden retries.

By default redis-py retries a failed command, and a retried write is a second write; its streams
also cost the commit path more than the commands do. This connection sends commands exactly once, in
one packet, and closes after any failure: the outcome of commands in flight is then unknown, and the
caller reports that. Only this folder imports redis or hiredis.

    commands ──packed, one write──> server
    future   <──all replies──────── hiredis reader, fed by the event loop
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import hiredis

from busyapi.errors import RedisUnavailable
from busyapi.stream.connect import ALL_TRIES, Tries, connect
from busyapi.stream.credentials import Login
from busyapi.stream.host_lookup import LookupFailure, describe_close, describe_failure
from busyapi.stream.scripts import ALL_SCRIPTS, Script
from busyapi.stream.silence import SilenceWatch

CONNECT_TIMEOUT_SECONDS = 2.0
REPLY_TIMEOUT_SECONDS = 5.0
"""A server that is silent for longer counts as unreachable, and the outcome of what was sent is
unknown."""
LARGE_REPLY_TIMEOUT_SECONDS = 60.0
"""A reply that is large for its link may take longer than that while its bytes arrive, up to this
limit."""

Command = tuple[Any, ...]


class ServerError(Exception):
    """An error reply: the server refused one command. `code` is the reply's first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.split(" ", 1)[0]


class _ReplyProtocol(asyncio.Protocol):
    """Collector of the replies to the commands that were sent last."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=ServerError)
        self._replies: list[Any] = []
        self._expected = 0
        self._future: asyncio.Future[list[Any]] | None = None
        self._has_replied = False
        self.first_reply_at = 0.0
        """When the first reply to the last commands arrived, by the clock of the loop."""
        self.transport: asyncio.Transport | None = None
        self.closed_reason = ""
        """Why the transport was closed."""
        self.on_bytes: Callable[[], None] | None = None
        """Callback for arriving bytes."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def expect(self, replies: int) -> asyncio.Future[list[Any]]:
        """Return a future that gets the next `replies` replies."""
        if self._future:
            raise RuntimeError("two tasks share a connection")
        self._replies, self._expected = [], replies
        self._future = self._loop.create_future()
        return self._future

    def data_received(self, data: bytes) -> None:
        self._has_replied = True
        if not self._replies:
            self.first_reply_at = self._loop.time()
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
            # For example "too many clients", which a server sends before it hangs up.
            reply = self._replies[-1] if self._replies else None
            self.fail(
                str(reply)
                if isinstance(reply, ServerError)
                else "it sent a reply without a request"
            )
            return
        future, self._future = self._future, None
        if not future.done():
            future.set_result(self._replies)

    def connection_lost(self, exc: Exception | None) -> None:
        # A server that hangs up may have sent the reason in place of a reply.
        reply = self._replies[-1] if self._future and self._replies else None
        is_tls = self.transport is not None and self.transport.get_extra_info("ssl_object")
        reason = describe_close(exc, is_unanswered_tls=bool(is_tls and not self._has_replied))
        self.fail(str(reply) if isinstance(reply, ServerError) and not exc else reason)

    def fail(self, reason: str) -> None:
        """Close the connection, and fail the future that waits for replies."""
        transport, self.transport = self.transport, None
        if transport:
            self.closed_reason = reason
            transport.abort()
        future, self._future = self._future, None
        if future and not future.done():
            future.set_exception(ConnectionError(reason))
            future.exception()  # marks it as retrieved: the waiter may have been cancelled


class RedisConnection:
    """A connection to one server. Calls must not overlap: one task at a time owns it."""

    def __init__(self, replies: _ReplyProtocol, address: str, ip: str) -> None:
        self._replies = replies
        self.address = address
        self.ip = ip
        self.is_replaced: Callable[[], Awaitable[bool]] | None = None
        """Asked while a reply is overdue. If it returns true, the connection is closed."""
        self.lookup_failure: LookupFailure | None = None
        """Why the server was found by a last address, None if it was not."""

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        ips: Sequence[str],
        *,
        login: Login | None,
        context: ssl.SSLContext | None,
        tries: Tries = ALL_TRIES,
    ) -> "RedisConnection":
        """Connect to the first of a host's addresses that accepts, and log in.

        With `context` the connection uses TLS, and the certificate must be that of `host`.

        Raises:
            RedisUnavailable: the server cannot be reached, or refuses the login.
        """
        address = f"{host}:{port}"
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                replies, ip = await connect(_ReplyProtocol, host, port, ips, context, tries=tries)
        except (OSError, TimeoutError, UnicodeError) as error:
            why = describe_failure(error, min(CONNECT_TIMEOUT_SECONDS, sum(tries)))
            raise RedisUnavailable(f"no connection to Redis at {address}: {why}") from None
        connection = cls(replies, address, ip)
        if replies.transport:
            # Without keepalive an idle committer, which sends nothing, would not notice that the
            # server's machine has disappeared.
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
            # A server without free client slots answers the first command, whatever it is, with
            # "max number of clients reached".
            why = "the user or password" if _is_login_error(reply) else f"the login: {reply}"
            raise RedisUnavailable(f"Redis at {self.address} refuses {why}")

    @property
    def is_closed(self) -> bool:
        """Return whether the connection can no longer be used."""
        return self._replies.transport is None

    @property
    def first_reply_at(self) -> float:
        """When the first reply to the last commands arrived, by the clock of the loop."""
        return self._replies.first_reply_at

    async def load_scripts(self) -> None:
        """Load every script: a server that restarts forgets them.

        Raises:
            RedisUnavailable: the server refuses a script.
        """
        for reply in await self.pipeline(
            *(("SCRIPT", "LOAD", script.source) for script in ALL_SCRIPTS)
        ):
            if isinstance(reply, ServerError):
                await self.close()
                raise RedisUnavailable(f"Redis at {self.address} refuses scripts: {reply}")

    async def pipeline(
        self, *commands: Command, timeout_seconds: float = REPLY_TIMEOUT_SECONDS
    ) -> list[Any]:
        """Send commands in one packet; return each reply, a `ServerError` for a refused command.

        Raises:
            RedisUnavailable: the connection failed. The server may have executed the commands.
        """
        return await self.wait_replies(self.send(commands), timeout_seconds=timeout_seconds)

    def send(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Send commands in one packet, now; the caller must await `wait_replies`.

        Raises:
            RedisUnavailable: the connection is closed; nothing was sent.
        """
        transport = self._replies.transport
        if transport is None or transport.is_closing():
            self._replies.fail("it is closing")
            raise RedisUnavailable(
                f"no connection to Redis at {self.address}: {self._replies.closed_reason}"
            )
        future = self._replies.expect(len(commands))
        transport.write(b"".join(map(hiredis.pack_command, commands)))
        return future

    async def wait_replies(
        self,
        future: asyncio.Future[list[Any]],
        *,
        timeout_seconds: float = REPLY_TIMEOUT_SECONDS,
        large: bool = False,
    ) -> list[Any]:
        """Wait for the replies to the last `send`; raises as `pipeline` does.

        For a large reply `timeout_seconds` limits the time in which no byte of it arrives.
        """
        loop = asyncio.get_running_loop()
        watch = SilenceWatch(self.is_replaced, self._replies.fail) if self.is_replaced else None
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
            raise RedisUnavailable(f"Redis at {self.address}: {str(error) or 'no reply'}") from None
        except BaseException:
            # Cancelled between a command and its reply: the next caller would get that reply.
            await self.close()
            raise
        finally:
            self._replies.on_bytes = None
            if watch:
                watch.close()
        if isinstance(replies[0], ServerError) and replies[0].code == "NOAUTH":
            # This connection did not log in, because no password is set.
            await self.close()
            raise RedisUnavailable(f"Redis at {self.address} refuses the user or password")
        return replies

    async def execute(
        self, *command: Any, timeout_seconds: float = REPLY_TIMEOUT_SECONDS, large: bool = False
    ) -> Any:
        """Send one command, and return its reply; for `large` see `wait_replies`.

        Raises:
            RedisUnavailable: as for `pipeline`.
            ServerError: the server refused the command.
        """
        future = self.send([command])
        (reply,) = await self.wait_replies(future, timeout_seconds=timeout_seconds, large=large)
        if isinstance(reply, ServerError):
            raise reply
        return reply

    async def close(self) -> None:
        """Close at once; never raises."""
        self._replies.fail("closed")


def _is_login_error(reply: ServerError) -> bool:
    return reply.code in {"WRONGPASS", "NOAUTH"} or "AUTH" in str(reply)


def make_evalsha(script: Script, keys: Sequence[str], *arguments: Any) -> Command:
    """Return the command that runs a script."""
    return ("EVALSHA", script.sha1, len(keys), *keys, *arguments)
