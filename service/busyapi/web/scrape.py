"""GET /metrics, from the event loop that serves everything else.

A rendering takes milliseconds of the loop. Requests that come while one is due share it, and after
each the loop has nine times as long for other work, so scrapes take a tenth of it at most, however
many ask. Each answer is rendered after its request came.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter

import structlog
from sanic import Request, Sanic
from sanic.response import HTTPResponse
from sanic.server import AsyncioServer

from busyapi.errors import place
from busyapi.web.connections import Connections
from busyapi.web.problems import Problem, Problems
from busyapi.web.protocol import Bounds, DeadlineProtocol, WholeRequest
from busyapi.web.refusal import Refuser
from busyapi.web.server import listen

log = structlog.get_logger()

REST = 9.0
"""Times as long as a rendering took, before the next."""
MAX_BODY_BYTES = 65_536
"""Of a request that needs none."""
MAX_CONNECTIONS = 256
"""Prometheus keeps one or two; the oldest quiet one makes room for the next."""

Render = Callable[[], bytes]
Choose = Callable[[str], tuple[Render, str]]
"""Return the rendering for an Accept header, and its content type."""


class Scrape:
    """The handler of GET /metrics."""

    def __init__(self, choose: Choose) -> None:
        self.scraped = asyncio.Event()
        self._choose = choose
        self._waiting: dict[str, tuple[Render, asyncio.Future[bytes | None]]] = {}
        self._due = 0.0

    async def __call__(self, request: Request) -> HTTPResponse:
        """Answer a scrape."""
        render, content_type = self._choose(request.headers.get("accept", ""))
        body = await asyncio.shield(self._next(render, content_type))
        if body is None:
            raise Problem(500, "The metrics cannot be rendered.")
        self.scraped.set()
        return HTTPResponse(body, headers={"Content-Type": content_type})

    def _next(self, render: Render, content_type: str) -> asyncio.Future[bytes | None]:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_at(max(loop.time(), self._due), self._render)
        if content_type not in self._waiting:
            self._waiting[content_type] = render, loop.create_future()
        return self._waiting[content_type][1]

    def _render(self) -> None:
        waiting, self._waiting = self._waiting, {}
        began = perf_counter()
        for render, future in waiting.values():
            body = None
            try:
                body = render()
            except Exception as error:  # noqa: BLE001 - each that waits is answered 500
                name = type(error).__name__
                log.error("unexpected_error", error=name, where=place(error), request_id="")
            future.set_result(body)
        took = perf_counter() - began
        self._due = asyncio.get_running_loop().time() + REST * took


class MetricsPort:
    """A port for metrics alone, beside the one that serves devices."""

    def __init__(self, choose: Choose, bounds: Bounds) -> None:
        self._server: AsyncioServer | None = None
        app = self._app = Sanic(
            "busyapi-metrics",
            configure_logging=False,
            error_handler=Problems(),
            request_class=WholeRequest,
        )
        # The first application of the process has prepared Sanic's methods for both.
        app.config.update(
            ACCESS_LOG=False,
            TOUCHUP=False,
            REQUEST_TIMEOUT=bounds.deadline,
            REQUEST_MAX_SIZE=MAX_BODY_BYTES,
        )
        app.add_route(Scrape(choose).__call__, "/metrics", methods=["GET", "HEAD"], name="metrics")
        members = {
            **bounds._asdict(),
            "port": Connections(MAX_CONNECTIONS, Refuser({}), patient=False),
        }
        self._protocol = type("MetricsProtocol", (DeadlineProtocol,), members)

    async def open(self, port: int) -> None:
        """Open it.

        Raises:
            OSError: the port is taken.
        """
        sock = listen(port, shared=False)
        self._server = await self._app.create_server(
            sock=sock, protocol=self._protocol, return_asyncio_server=True
        )
        assert self._server  # noqa: S101 - a socket always gives one
        await self._server.startup()  # type: ignore[no-untyped-call]
        await self._server.start_serving()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Close it; connections that are left end with the process."""
        if self._server:
            self._server.close()  # type: ignore[no-untyped-call]
