"""One API process: its routes and its life.

    start   lanes and readers open; the port is open at once, /readyz says when to send
    drain   SIGTERM: /readyz fails, everything is served, each answer closes its connection
    close   no new connections; accepted requests are answered; lanes settle; Redis closed last

Sanic's listeners are the three steps.
"""

import asyncio
import gc
from functools import partial
from typing import Any

import structlog
from sanic import Request, Sanic
from sanic.response import HTTPResponse

from busyapi.api.cors import Cors
from busyapi.api.fast import ROUTE, protocol_for
from busyapi.api.lookup import get_count, get_usage
from busyapi.api.pages import get_landing, get_openapi
from busyapi.api.probes import livez, readyz, unserved_probes
from busyapi.api.problems import ApiProblems
from busyapi.api.service import Service
from busyapi.api.usages import post_batch, post_usage
from busyapi.commit.lane import Lane
from busyapi.errors import told
from busyapi.web.connections import Connections, close_idle
from busyapi.web.protocol import Bounds, WholeRequest
from busyapi.web.refusal import Refuser
from busyapi.web.scrape import MetricsPort
from busyapi.web.server import allow_files, listen, stop, stop_at_signals

log = structlog.get_logger()

READ = ["GET", "HEAD"]
COLLECT_AFTER = 5_000
"""Containers more than were freed, before the collector looks at the young ones. A request leaves
none behind: reference counts free it. After Python's 700 a batch of objects alone makes it look,
and each full look at the 60,000 objects of the modules holds the event loop for 60 ms."""

BACKLOG = 4096
IDLE_SECONDS = 120
"""Keep-alive outlives that of any ingress, so that it is the ingress that closes."""


def make_app(service: Service) -> Sanic[Any, Any]:
    """Build the Sanic application around a service."""
    app: Sanic[Any, Any] = Sanic(
        "busyapi", configure_logging=False, error_handler=ApiProblems(), request_class=WholeRequest
    )
    app.ctx.service = service
    _configure(app, service)
    # They receive their bodies themselves, after what the header alone decides.
    app.add_route(post_usage, "/api/usages", methods=["POST"], stream=True)
    app.add_route(post_batch, "/api/usages/batch", methods=["POST"], stream=True)
    app.add_route(get_count, "/api/usages/count", methods=READ)
    app.add_route(get_usage, "/api/usages/<usage:int>", methods=READ)
    app.add_route(get_landing, "/", methods=READ)
    app.add_route(get_openapi, "/openapi.json", methods=READ)
    app.add_route(livez, "/livez", methods=READ)
    app.add_route(readyz, "/readyz", methods=READ)
    if service.cors:
        _share(app, service, service.cors)
    app.register_listener(_open, "before_server_start")
    app.register_listener(_heed_signals, "after_server_start")
    app.register_listener(_tune_collector, "after_server_start")
    app.register_listener(_drain, "before_server_stop")
    app.register_listener(_close, "after_server_stop")
    return app


def _share(app: Sanic[Any, Any], service: Service, cors: Cors) -> None:
    """Let pages of other origins call the API."""

    async def options(request: Request, **_: int) -> HTTPResponse:
        return service.done(request, cors.preflight(request))

    for path in (ROUTE, f"{ROUTE}/batch", f"{ROUTE}/count", f"{ROUTE}/<usage:int>"):
        app.add_route(options, path, methods=["OPTIONS"], name=f"options {path}")
    app.register_middleware(cors.allow, "response")


def _configure(app: Sanic[Any, Any], service: Service) -> None:
    settings = service.settings
    app.config.update(
        ACCESS_LOG=False,
        MOTD=False,
        REQUEST_MAX_SIZE=settings.max_body,  # of requests that need no body
        REQUEST_TIMEOUT=settings.request_deadline,
        # A commit is answered by its own deadline long before this.
        RESPONSE_TIMEOUT=settings.commit_deadline + settings.request_deadline + 30,
        KEEP_ALIVE_TIMEOUT=IDLE_SECONDS,
        GRACEFUL_SHUTDOWN_TIMEOUT=settings.stop_timeout,
    )


async def _open(app: Sanic[Any, Any]) -> None:
    service: Service = app.ctx.service

    def fatal(error: BaseException) -> None:
        log.error("cannot_run", reason=type(error).__name__, detail=told(error))
        service.fatal = error
        stop(app, lambda: service.draining)

    service.lanes.open(fatal)
    service.metrics.pending.set_function(lambda: service.lanes.admission.count)
    service.metrics.connections.set_function(lambda: len(service.connections.live))
    service.metrics.receiving.set_function(lambda: service.budget.used)
    service.connections.refused = service.metrics.connections_refused.inc
    service.metrics.held.set_function(lambda: not any(lane.weak for lane in service.lanes.lanes))
    for lane in service.lanes.lanes:
        service.metrics.lanes.labels(lane.partition).set_function(partial(_ready, lane))
        service.metrics.last_seq.labels(lane.partition).set_function(partial(_highest, lane))
    settings = service.settings
    app.ctx.metrics_port = MetricsPort(
        service.metrics.exposition,
        Bounds(settings.request_deadline, settings.max_header, service.budget),
    )
    await app.ctx.metrics_port.open(settings.metrics_port)
    log.info(
        "api_started",
        port=service.settings.port,
        metrics=service.settings.metrics_port,
        loop=type(asyncio.get_running_loop()).__module__.partition(".")[0],
    )


def _ready(lane: Lane) -> float:
    return float(lane.ready)


def _highest(lane: Lane) -> float:
    return float(lane.highest)


async def _heed_signals(app: Sanic[Any, Any]) -> None:
    service: Service = app.ctx.service
    stop_at_signals(app, lambda: service.draining)


async def _tune_collector(_app: Sanic[Any, Any]) -> None:
    """Take what the start left out of the collector's sight, once it is all there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 10, 10)


async def _drain(app: Sanic[Any, Any]) -> None:
    service: Service = app.ctx.service
    if service.draining:
        return  # Sanic may call this twice
    service.draining = True
    log.info("draining", seconds=service.settings.drain_delay)
    if service.fatal is None:
        # Connections are still accepted: endpoints forget a pod seconds after its SIGTERM.
        await asyncio.sleep(service.settings.drain_delay)
    close_idle()


async def _close(app: Sanic[Any, Any]) -> None:
    service: Service = app.ctx.service
    await service.lanes.close(service.settings.stop_timeout)
    for reader in service.readers:
        await reader.close()
    await service.archive.close()
    await app.ctx.metrics_port.close()
    log.info("api_stopped")


def serve(service: Service) -> int:
    """Serve until SIGTERM or SIGINT; give the process's exit code."""
    app = make_app(service)
    sock = listen(service.settings.port)
    most = allow_files(service.settings.max_connections)
    service.connections = Connections(most, Refuser(unserved_probes(service), stored="no"))
    app.run(
        sock=sock,
        protocol=protocol_for(service),
        backlog=BACKLOG,
        single_process=True,
        register_sys_signals=False,
        access_log=False,
        motd=False,
    )
    return 1 if service.fatal else 0
