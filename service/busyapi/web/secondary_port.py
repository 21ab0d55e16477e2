"""A second port of a process, served by the event loop that serves the first one."""

import socket
from collections.abc import Callable
from ssl import SSLContext
from typing import Any

from sanic import Sanic
from sanic.server import AsyncioServer

from busyapi.web.connections import ConnectionTable
from busyapi.web.problems import ProblemHandler
from busyapi.web.protocol import ConnectionLimits, DeadlineProtocol
from busyapi.web.request import BufferedRequest


class SecondaryPort:
    """A Sanic application without a life of its own: add its routes to `app`, then open it."""

    def __init__(
        self, name: str, max_body: int, limits: ConnectionLimits, connections: ConnectionTable
    ) -> None:
        self._server: AsyncioServer | None = None
        self.app: Sanic[Any, Any] = Sanic(
            f"busyapi-{name}",
            configure_logging=False,
            error_handler=ProblemHandler(),
            request_class=BufferedRequest,
        )
        # TOUCHUP is off: the process's first application has prepared Sanic's methods for all.
        self.app.config.update(
            ACCESS_LOG=False,
            TOUCHUP=False,
            REQUEST_TIMEOUT=limits.deadline,
            REQUEST_MAX_SIZE=max_body,
        )
        members = {**limits._asdict(), "connection_table": connections}
        self._protocol = type(f"{name.title()}Protocol", (DeadlineProtocol,), members)

    def add_route(self, handler: Callable[..., Any], path: str, methods: list[str]) -> None:
        """Serve a path."""
        self.app.add_route(handler, path, methods=methods, name=path.strip("/").partition("/")[0])

    async def open(self, sock: socket.socket, tls: SSLContext | None = None) -> None:
        """Serve on a socket that is bound to the port."""
        self._server = await self.app.create_server(
            sock=sock, ssl=tls, protocol=self._protocol, return_asyncio_server=True
        )
        assert self._server  # noqa: S101 - with a socket there is always a server
        await self._server.startup()  # type: ignore[no-untyped-call]
        await self._server.start_serving()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Close the port. Its open connections end with the process."""
        if self._server:
            self._server.close()  # type: ignore[no-untyped-call]
