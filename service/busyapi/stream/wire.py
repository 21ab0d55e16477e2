"""One connection to one Redis server, without a hidden retry.

redis-py by default repeats a command that failed, and a repeated write is a second write. A
wire sends what it is given once, in one packet, and after any failure it is closed: what was
under way is unknown, and the caller says so. Only this folder imports redis.
"""

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Connection
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from busyapi.errors import RedisAway
from busyapi.stream.scripts import ALL, Script

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
"""A server that is silent for longer is taken for gone; what was sent to it is unknown."""

TYPED: dict[type[Exception], str] = {
    NoScriptError: "NOSCRIPT",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    NoPermissionError: "NOPERM",
    BusyLoadingError: "LOADING",
}

Command = tuple[Any, ...]


class ServerError(Exception):
    """An error reply: the server refused one command. `code` is its first word."""

    def __init__(self, reply: Exception) -> None:
        super().__init__(str(reply))
        # redis-py turns some codes into types and drops the word from the text.
        self.code = TYPED.get(type(reply)) or str(reply).split(" ", 1)[0]


class Wire:
    """A connection. Calls must not overlap: one task at a time owns it."""

    def __init__(self, connection: Connection, address: str) -> None:
        self._connection = connection
        self.address = address
        self.closed = False

    @classmethod
    async def open(cls, options: dict[str, Any], *, tls: bool) -> "Wire":
        """Connect and log in.

        Raises:
            RedisAway: it cannot be reached, or the login is refused.
        """
        kind = SSLConnection if tls else Connection
        address = f"{options['host']}:{options['port']}"
        connection = kind(
            **options,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=None,
            socket_keepalive=True,
            driver_info=None,
        )
        wire = cls(connection, address)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.connect()  # type: ignore[no-untyped-call]
        except AuthenticationError:
            await wire.close()
            raise RedisAway(f"Redis at {address} refuses the user or password") from None
        except (RedisError, OSError, TimeoutError, UnicodeError) as error:
            await wire.close()
            raise RedisAway(f"no connection to Redis at {address}: {_kind(error)}") from None
        return wire

    async def load_scripts(self) -> None:
        """Load every script; they are gone with a restart of the server.

        Raises:
            RedisAway: the server refuses them.
        """
        for reply in await self.call(*(("SCRIPT", "LOAD", each.source) for each in ALL)):
            if isinstance(reply, ServerError):
                await self.close()
                raise RedisAway(f"Redis at {self.address} takes no scripts: {reply}")

    async def call(self, *commands: Command, seconds: float = ANSWER_SECONDS) -> list[Any]:
        """Send commands in one go; give each one's reply, a `ServerError` where it was refused.

        Raises:
            RedisAway: the connection failed. What was sent may or may not have been done.
        """
        if self.closed:
            raise RedisAway(f"the connection to Redis at {self.address} is closed")
        connection = self._connection
        if not connection.is_connected:
            # redis-py would connect anew by itself, to a server that nobody has checked.
            await self.close()
            raise RedisAway(f"the connection to Redis at {self.address} is gone")
        try:
            async with asyncio.timeout(seconds):
                packed = connection.pack_commands(commands)
                await connection.send_packed_command(packed, check_health=False)
                return [await self._reply() for _ in commands]
        except AuthenticationError:
            # Nobody logged in, because no password was given.
            await self.close()
            raise RedisAway(f"Redis at {self.address} refuses the user or password") from None
        except (RedisError, OSError, TimeoutError) as error:
            await self.close()
            raise RedisAway(f"Redis at {self.address}: {type(error).__name__}") from None
        except BaseException:
            # Cancelled between a command and its reply: the next caller would read it.
            await self.close()
            raise

    async def one(self, *command: Any, seconds: float = ANSWER_SECONDS) -> Any:
        """Send one command.

        Raises:
            RedisAway: as for `call`.
            ServerError: the server refused it.
        """
        (reply,) = await self.call(command, seconds=seconds)
        if isinstance(reply, ServerError):
            raise reply
        return reply

    async def _reply(self) -> Any:
        try:
            return await self._connection.read_response(
                disable_decoding=True, timeout=float("inf"), disconnect_on_error=False
            )
        except ResponseError as error:
            return ServerError(error)

    async def close(self) -> None:
        """Close at once; never raises."""
        self.closed = True
        try:
            await self._connection.disconnect(nowait=True)
        except (RedisError, OSError):
            pass


def _kind(error: BaseException) -> str:
    """Name a failure; of a certificate, also what is wrong with it, which redis-py hides."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is refused ({cause.verify_message})"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def evalsha(script: Script, keys: Sequence[str], *arguments: Any) -> Command:
    """Make the command that runs a script."""
    return ("EVALSHA", script.sha, len(keys), *keys, *arguments)
