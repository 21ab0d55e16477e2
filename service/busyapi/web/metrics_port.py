"""The port of GET /metrics, served by the event loop that serves all other requests.

A rendering blocks the loop for milliseconds. All scrapes that wait for the next rendering share it.
After each one the loop has nine times as long for other work, so any number of scrapes takes at
most a tenth of its time. A response is always rendered after its request arrived.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter

import structlog
from sanic import Request
from sanic.response import HTTPResponse

from busyapi.errors import locate_error
from busyapi.web.connection_refusal import ConnectionRefuser
from busyapi.web.connections import ConnectionTable
from busyapi.web.problems import Problem
from busyapi.web.protocol import ConnectionLimits
from busyapi.web.secondary_port import SecondaryPort

log = structlog.get_logger()

RENDER_PAUSE_FACTOR = 9.0
"""The pause before the next rendering, in lengths of the last one."""
MAX_BODY_BYTES = 65_536
"""Limit for the body of a request that needs no body."""
MAX_CONNECTIONS = 256
"""Prometheus keeps one or two; at the limit the oldest quiet connection is closed."""

Renderer = Callable[[], bytes]
RendererChooser = Callable[[str], tuple[Renderer, str]]
"""A function that returns the renderer for an Accept header, and its content type."""


class MetricsHandler:
    """The handler of GET /metrics."""

    def __init__(self, choose_renderer: RendererChooser) -> None:
        self.scraped = asyncio.Event()
        self._choose_renderer = choose_renderer
        self._waiting: dict[str, tuple[Renderer, asyncio.Future[bytes | None]]] = {}
        self._next_render_at = 0.0

    async def __call__(self, request: Request) -> HTTPResponse:
        """Return the metrics."""
        render, content_type = self._choose_renderer(request.headers.get("accept", ""))
        body = await asyncio.shield(self._schedule_rendering(render, content_type))
        if body is None:
            raise Problem(500, "The metrics cannot be rendered.")
        self.scraped.set()
        return HTTPResponse(body, headers={"Content-Type": content_type})

    def _schedule_rendering(
        self, render: Renderer, content_type: str
    ) -> asyncio.Future[bytes | None]:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_at(max(loop.time(), self._next_render_at), self._render)
        if content_type not in self._waiting:
            self._waiting[content_type] = render, loop.create_future()
        return self._waiting[content_type][1]

    def _render(self) -> None:
        waiting, self._waiting = self._waiting, {}
        start = perf_counter()
        for render, future in waiting.values():
            body = None
            try:
                body = render()
            except Exception as error:  # noqa: BLE001 - every waiting scrape gets 500
                name = type(error).__name__
                log.error("unexpected_error", error=name, where=locate_error(error), request_id="")
            future.set_result(body)
        seconds = perf_counter() - start
        self._next_render_at = asyncio.get_running_loop().time() + RENDER_PAUSE_FACTOR * seconds


def make_metrics_port(choose_renderer: RendererChooser, limits: ConnectionLimits) -> SecondaryPort:
    """Return a port for metrics alone, separate from the port for devices."""
    table = ConnectionTable(MAX_CONNECTIONS, ConnectionRefuser({}), has_grace_period=False)
    port = SecondaryPort("metrics", MAX_BODY_BYTES, limits, table)
    port.add_route(MetricsHandler(choose_renderer).__call__, "/metrics", ["GET", "HEAD"])
    return port
