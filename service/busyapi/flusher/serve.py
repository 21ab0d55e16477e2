"""A flusher's own port: probes, metrics, and the read door that the API asks."""

import asyncio
from contextlib import suppress
from typing import Any

import structlog
from sanic import Request, Sanic
from sanic.response import HTTPResponse

from busyapi.errors import ArchiveError, NoLongerKept, told
from busyapi.flusher.loop import Flusher
from busyapi.ids import Seq
from busyapi.metrics import FlusherMetrics
from busyapi.web.server import KnownProtocol, close_idle, listen, stop, stop_at_signals

log = structlog.get_logger()

STOP_SECONDS = 10.0
SCRAPE_SECONDS = 20.0
"""A flusher that failed ends no later than this, and before that when its metrics were read: what
it counted last is why."""
TEXT = "text/plain; charset=utf-8"


class Door:
    """The flusher's Sanic application, and its life."""

    def __init__(self, flusher: Flusher, metrics: FlusherMetrics) -> None:
        self.failed: BaseException | None = None
        self._flusher = flusher
        self._metrics = metrics
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._scraped = asyncio.Event()
        app = self.app = Sanic("busyapi-flusher", configure_logging=False)
        app.config.update(ACCESS_LOG=False, GRACEFUL_SHUTDOWN_TIMEOUT=1.0, KEEP_ALIVE_TIMEOUT=60)
        app.add_route(self._livez, "/livez")
        app.add_route(self._readyz, "/readyz")
        app.add_route(self._scrape, "/metrics")
        app.add_route(self._find, "/usages/<seq:int>")
        app.register_listener(self._open, "after_server_start")
        app.register_listener(self._close, "before_server_stop")

    def serve(self, port: int) -> int:
        """Flush and serve until SIGTERM; give the process's exit code."""
        self.app.run(
            sock=listen(port),
            protocol=KnownProtocol,
            single_process=True,
            register_sys_signals=False,
            access_log=False,
            motd=False,
        )
        return 1 if self.failed else 0

    async def _open(self, app: Sanic[Any, Any]) -> None:
        stop_at_signals(app, lambda: self._stopping)
        # The loop's own task: Sanic would cancel one of its own at SIGTERM, in mid-flush.
        self._task = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        try:
            await self._flusher.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the process ends with it
            self.failed = error
            log.error("flusher_failed", error=type(error).__name__, detail=told(error))
            self._scraped.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._scraped.wait(), SCRAPE_SECONDS)
            stop(self.app, lambda: self._stopping)

    async def _close(self, app: Sanic[Any, Any]) -> None:
        self._stopping = True
        self._flusher.stop()
        self._scraped.set()
        if self._task:
            await asyncio.wait([self._task], timeout=STOP_SECONDS)
        close_idle()
        log.info("flusher_stopped")

    async def _livez(self, request: Request) -> HTTPResponse:
        return HTTPResponse("loop: ok\n", content_type=TEXT)

    async def _readyz(self, request: Request) -> HTTPResponse:
        trouble = self._flusher.trouble
        return HTTPResponse(
            f"flusher: {trouble or 'ok'}\n", 503 if trouble else 200, content_type=TEXT
        )

    async def _scrape(self, request: Request) -> HTTPResponse:
        body, content_type = self._metrics.exposition(request.headers.get("accept", ""))
        self._scraped.set()
        return HTTPResponse(body, headers={"Content-Type": content_type})

    async def _find(self, request: Request, seq: int) -> HTTPResponse:
        writer = self._flusher.writer
        if writer is None:
            return HTTPResponse("the archive is not open\n", 503, content_type=TEXT)
        try:
            line = await asyncio.to_thread(writer.find, Seq(seq))
        except NoLongerKept:
            return HTTPResponse("", 410, content_type=TEXT)
        except (ArchiveError, OSError) as error:
            named = request.headers.get("x-request-id", "")
            log.warning("lookup_failed", error=type(error).__name__, request_id=named)
            self._flusher.tell_damage(writer)
            return HTTPResponse("the archive cannot be read\n", 503, content_type=TEXT)
        if line is None:
            return HTTPResponse("", 404, content_type=TEXT)
        return HTTPResponse(line, content_type="application/json")
