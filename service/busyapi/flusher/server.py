"""A flusher's server: probes and metrics on one port, and what the API asks for on another."""

import asyncio
from contextlib import suppress
from typing import Any

import structlog
from sanic import Request, Sanic
from sanic.response import HTTPResponse

from busyapi.errors import describe_for_log
from busyapi.flusher.archive_port import ArchiveHandlers, ArchivePortConfig, make_archive_port
from busyapi.flusher.audit import AuditKeeper
from busyapi.flusher.lookup import LookupHandler
from busyapi.flusher.loop import Flusher
from busyapi.flusher.page_reader import PageReader
from busyapi.flusher.pages import PageHandler
from busyapi.flusher.verifier import Verifier
from busyapi.stream.unchecked_settings import describe_trust
from busyapi.telemetry.metrics import FlusherMetrics
from busyapi.web.connection_refusal import ConnectionRefuser
from busyapi.web.connections import ConnectionTable, close_idle_connections
from busyapi.web.listener import PortUnavailable, open_listener
from busyapi.web.metrics_port import MetricsHandler
from busyapi.web.problems import Problem, ProblemHandler
from busyapi.web.protocol import ConnectionLimits, DeadlineProtocol
from busyapi.web.request import BufferedRequest
from busyapi.web.server import install_stop_signals, raise_open_files_limit, stop_app

log = structlog.get_logger()

STOP_TIMEOUT_SECONDS = 10.0
FINAL_SCRAPE_SECONDS = 20.0
"""How long a failed flusher waits for a last scrape before it ends: its final counters show why it
failed."""
MAX_BODY_BYTES = 65_536
"""A request needs no body; a larger one is refused."""
TEXT = "text/plain; charset=utf-8"


class FlusherServer:
    """The flusher's Sanic application and its lifecycle."""

    def __init__(
        self,
        flusher: Flusher,
        verifier: Verifier,
        keeper: AuditKeeper,
        metrics: FlusherMetrics,
        *,
        archive: ArchivePortConfig,
        page_reader: PageReader,
    ) -> None:
        self.error: BaseException | None = None
        self._flusher, self._verifier, self._keeper = flusher, verifier, keeper
        self._archive, self._page_reader = archive, page_reader
        self._lookup = LookupHandler(flusher, keeper)
        self._stopping = False
        self._auditing: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._verifying: asyncio.Task[None] | None = None
        app = self.app = Sanic(
            "busyapi-flusher",
            configure_logging=False,
            error_handler=ProblemHandler(),
            request_class=BufferedRequest,
        )
        app.config.update(
            ACCESS_LOG=False,
            GRACEFUL_SHUTDOWN_TIMEOUT=1.0,
            KEEP_ALIVE_TIMEOUT=60,
            REQUEST_MAX_SIZE=MAX_BODY_BYTES,
        )
        scrape = MetricsHandler(metrics.choose_renderer)
        self._metrics_scraped = scrape.scraped
        methods = ["GET", "HEAD"]
        app.add_route(self._livez, "/livez", methods=methods)
        app.add_route(self._readyz, "/readyz", methods=methods)
        app.add_route(scrape.__call__, "/metrics", methods=methods, name="metrics")
        app.add_route(self._find_line, "/usages/<seq:int>", methods=methods)
        app.register_listener(self._open, "after_server_start")
        app.register_listener(self._close, "before_server_stop")

    def serve(self, port: int, host: str, max_connections: int, bounds: ConnectionLimits) -> int:
        """Flush and serve until SIGTERM; return the process's exit code."""
        self.app.config.update(REQUEST_TIMEOUT=bounds.deadline)
        try:
            sock = open_listener(port, "BUSYAPI_FLUSHER_PORT", host=host)
            self.app.ctx.archive_socket = open_listener(
                self._archive.port, "BUSYAPI_ARCHIVE_PORT", host=host, shared=False
            )
        except PortUnavailable as error:
            error.log()
            return 1
        probes = {b"/livez": self._render_liveness, b"/readyz": self._render_readiness}
        # Both ports may have all their connections at the same time.
        allowed = raise_open_files_limit(2 * max_connections) // 2
        members = {
            **bounds._asdict(),
            "connection_table": ConnectionTable(allowed, ConnectionRefuser(probes)),
        }
        self.app.ctx.archive_port = make_archive_port(
            self._archive,
            ArchiveHandlers(
                self._lookup, PageHandler(self._flusher, self._page_reader), self._keeper
            ),
            allowed,
            bounds,
        )
        self.app.run(
            sock=sock,
            protocol=type("FlusherProtocol", (DeadlineProtocol,), members),
            single_process=True,
            register_sys_signals=False,
            access_log=False,
            motd=False,
        )
        return 1 if self.error else 0

    async def _open(self, app: Sanic[Any, Any]) -> None:
        install_stop_signals(app, lambda: self._stopping)
        # A task of the loop: Sanic would cancel its own tasks at SIGTERM in the middle of a flush.
        self._task = asyncio.get_running_loop().create_task(self._run_flusher())
        self._verifying = asyncio.get_running_loop().create_task(self._verifier.run())
        self._auditing = asyncio.get_running_loop().create_task(self._keeper.run())
        await app.ctx.archive_port.open(app.ctx.archive_socket, self._archive.tls)
        if self._archive.is_open:
            log.warning("archive_port_open", port=self._archive.port)

    async def _run_flusher(self) -> None:
        try:
            await self._flusher.run()
        except Exception as error:  # noqa: BLE001 - any error ends the process
            self.error = error
            log.error("flusher_failed", error=type(error).__name__, detail=describe_for_log(error))
            self._metrics_scraped.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._metrics_scraped.wait(), FINAL_SCRAPE_SECONDS)
            stop_app(self.app, lambda: self._stopping)

    async def _close(self, app: Sanic[Any, Any]) -> None:
        self._stopping = True
        self._flusher.stop()
        self._metrics_scraped.set()
        if self._verifying:
            self._verifying.cancel()
            await asyncio.wait([self._verifying], timeout=STOP_TIMEOUT_SECONDS)
        if self._task:
            await asyncio.wait([self._task], timeout=STOP_TIMEOUT_SECONDS)
        await app.ctx.archive_port.close()
        await self._page_reader.close()
        self._keeper.stop()
        if self._auditing:
            await asyncio.wait([self._auditing], timeout=STOP_TIMEOUT_SECONDS)
        close_idle_connections()
        log.info("flusher_stopped")

    async def _livez(self, request: Request) -> HTTPResponse:
        return self._render_liveness()

    async def _readyz(self, request: Request) -> HTTPResponse:
        return self._render_readiness()

    def _render_liveness(self) -> HTTPResponse:
        return HTTPResponse("loop: ok\n", content_type=TEXT)

    def _render_readiness(self) -> HTTPResponse:
        reason, trust = self._flusher.not_ready_reason, self._flusher.durability_trust
        body = f"flusher: {reason or 'ok'}\n"
        if trust and not reason:
            body += f"durability: {describe_trust(trust)}\n"
        # A StatefulSet replaces the pods of old partitions, for which the pods of new ones wait,
        # only when these are ready.
        status = 503 if reason and not self._flusher.is_waiting else 200
        return HTTPResponse(body, status, content_type=TEXT)

    async def _find_line(self, request: Request, seq: int) -> HTTPResponse:
        """Serve an API process of 0.2.0, unless lookups are protected.

        It takes a 404 for "no such usage", and anything but 200, 404 and 410 for "unavailable".
        """
        if not self._archive.is_open:
            raise Problem(403, "Lookups are served on BUSYAPI_ARCHIVE_PORT.")
        return await self._lookup(request, seq)
