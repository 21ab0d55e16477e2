"""A flusher's own port: probes, metrics, and the read door that the API asks."""

import asyncio
from contextlib import suppress
from typing import Any

import structlog
from sanic import Request, Sanic
from sanic.response import HTTPResponse

from busyapi.errors import ArchiveError, NoLongerKept, UnknownVersion, told
from busyapi.flusher.loop import Flusher
from busyapi.ids import Seq
from busyapi.metrics import FlusherMetrics
from busyapi.web.connections import Connections, close_idle
from busyapi.web.problems import NOT_CACHED, Problem, Problems
from busyapi.web.protocol import Bounds, DeadlineProtocol, WholeRequest, named
from busyapi.web.refusal import Refuser
from busyapi.web.scrape import Scrape
from busyapi.web.server import allow_files, listen, stop, stop_at_signals

log = structlog.get_logger()

STOP_SECONDS = 10.0
SCRAPE_SECONDS = 20.0
"""A flusher that failed ends no later than this, and before that when its metrics were read: what
it counted last is why."""
MAX_BODY_BYTES = 65_536
"""Of a request that needs none."""
RETRY = {"Retry-After": "2"}
TEXT = "text/plain; charset=utf-8"


class Door:
    """The flusher's Sanic application, and its life."""

    def __init__(self, flusher: Flusher, metrics: FlusherMetrics, deadline: float) -> None:
        self.failed: BaseException | None = None
        self._flusher = flusher
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        app = self.app = Sanic(
            "busyapi-flusher",
            configure_logging=False,
            error_handler=Problems(),
            request_class=WholeRequest,
        )
        app.config.update(
            ACCESS_LOG=False,
            GRACEFUL_SHUTDOWN_TIMEOUT=1.0,
            KEEP_ALIVE_TIMEOUT=60,
            REQUEST_TIMEOUT=deadline,
            REQUEST_MAX_SIZE=MAX_BODY_BYTES,
        )
        scrape = Scrape(metrics.exposition)
        self._scraped = scrape.scraped
        methods = ["GET", "HEAD"]
        app.add_route(self._livez, "/livez", methods=methods)
        app.add_route(self._readyz, "/readyz", methods=methods)
        app.add_route(scrape.__call__, "/metrics", methods=methods, name="metrics")
        app.add_route(self._find, "/usages/<seq:int>", methods=methods)
        app.register_listener(self._open, "after_server_start")
        app.register_listener(self._close, "before_server_stop")

    def serve(self, port: int, max_connections: int, bounds: Bounds) -> int:
        """Flush and serve until SIGTERM; give the process's exit code."""
        probes = {b"/livez": self._alive, b"/readyz": self._readiness}
        members = {
            **bounds._asdict(),
            "port": Connections(allow_files(max_connections), Refuser(probes)),
        }
        self.app.run(
            sock=listen(port),
            protocol=type("FlusherProtocol", (DeadlineProtocol,), members),
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
        return self._alive()

    async def _readyz(self, request: Request) -> HTTPResponse:
        return self._readiness()

    def _alive(self) -> HTTPResponse:
        return HTTPResponse("loop: ok\n", content_type=TEXT)

    def _readiness(self) -> HTTPResponse:
        trouble = self._flusher.trouble
        return HTTPResponse(
            f"flusher: {trouble or 'ok'}\n", 503 if trouble else 200, content_type=TEXT
        )

    async def _find(self, request: Request, seq: int) -> HTTPResponse:
        writer = self._flusher.writer
        if writer is None:
            raise Problem(503, "The archive is not open.", RETRY)
        try:
            line = await asyncio.to_thread(writer.find, Seq(seq))
        except NoLongerKept:
            raise Problem(410, "The usage is no longer kept.") from None
        except (ArchiveError, UnknownVersion, OSError) as error:
            log.warning("lookup_failed", error=type(error).__name__, request_id=named(request))
            self._flusher.tell_damage(writer)
            raise Problem(503, "The archive cannot be read.", RETRY) from None
        if line is None:
            raise Problem(404, "No usage has this seq.")
        return HTTPResponse(line, 200, NOT_CACHED, "application/json")
