"""One API process: its routes and its life.

    start   committers and readers open; the port is open at once, /readyz says when to send
    drain   SIGTERM: /readyz fails, everything is served, each answer closes its connection
    close   no new connections; accepted requests are answered; committers settle; Redis closed last

Sanic's listeners are the three steps.
"""

import asyncio
import gc
from functools import partial
from typing import Any

import structlog
from sanic import Request, Sanic
from sanic.response import HTTPResponse

from busyapi.api.context import ApiContext
from busyapi.api.cors import Cors
from busyapi.api.fast_path import ROUTE, make_protocol
from busyapi.api.lookup import get_count, get_usage
from busyapi.api.pages import get_landing, get_openapi
from busyapi.api.probes import livez, make_overload_probes, readyz
from busyapi.api.problems import ApiProblemHandler
from busyapi.api.usages import post_batch, post_usage
from busyapi.commit.committer import Committer
from busyapi.errors import describe_for_log
from busyapi.web.connection_refusal import ConnectionRefuser
from busyapi.web.connections import ConnectionTable, close_idle_connections
from busyapi.web.metrics_port import MetricsPort
from busyapi.web.protocol import BufferedRequest, ConnectionLimits
from busyapi.web.server import install_stop_signals, open_listener, raise_open_files_limit, stop_app

log = structlog.get_logger()

READ_METHODS = ["GET", "HEAD"]
GC_THRESHOLD = 5_000
"""Containers more than were freed, before the collector looks at the young ones. A request leaves
none behind: reference counts free it. After Python's 700 a batch of objects alone makes it look,
and each full look at the 60,000 objects of the modules holds the event loop for 60 ms."""

BACKLOG = 4096
KEEP_ALIVE_SECONDS = 120
"""Keep-alive outlives that of any ingress, so that it is the ingress that closes."""


def make_app(context: ApiContext) -> Sanic[Any, Any]:
    """Build the Sanic application around a service."""
    app: Sanic[Any, Any] = Sanic(
        "busyapi",
        configure_logging=False,
        error_handler=ApiProblemHandler(),
        request_class=BufferedRequest,
    )
    app.ctx.context = context
    _configure(app, context)
    # They receive their bodies themselves, after what the header alone decides.
    app.add_route(post_usage, "/api/usages", methods=["POST"], stream=True)
    app.add_route(post_batch, "/api/usages/batch", methods=["POST"], stream=True)
    app.add_route(get_count, "/api/usages/count", methods=READ_METHODS)
    app.add_route(get_usage, "/api/usages/<usage:int>", methods=READ_METHODS)
    app.add_route(get_landing, "/", methods=READ_METHODS)
    app.add_route(get_openapi, "/openapi.json", methods=READ_METHODS)
    app.add_route(livez, "/livez", methods=READ_METHODS)
    app.add_route(readyz, "/readyz", methods=READ_METHODS)
    if context.cors:
        _add_cors(app, context, context.cors)
    app.register_listener(_open, "before_server_start")
    app.register_listener(_install_signal_handlers, "after_server_start")
    app.register_listener(_tune_garbage_collector, "after_server_start")
    app.register_listener(_drain, "before_server_stop")
    app.register_listener(_close, "after_server_stop")
    return app


def _add_cors(app: Sanic[Any, Any], context: ApiContext, cors: Cors) -> None:
    """Let pages of other origins call the API."""

    async def options(request: Request, **_: int) -> HTTPResponse:
        return context.record_response(request, cors.answer_preflight(request))

    for path in (ROUTE, f"{ROUTE}/batch", f"{ROUTE}/count", f"{ROUTE}/<usage:int>"):
        app.add_route(options, path, methods=["OPTIONS"], name=f"options {path}")
    app.register_middleware(cors.add_headers, "response")


def _configure(app: Sanic[Any, Any], context: ApiContext) -> None:
    settings = context.settings
    app.config.update(
        ACCESS_LOG=False,
        MOTD=False,
        REQUEST_MAX_SIZE=settings.max_body,  # of requests that need no body
        REQUEST_TIMEOUT=settings.request_deadline,
        # A commit is answered by its own deadline long before this.
        RESPONSE_TIMEOUT=settings.commit_deadline + settings.request_deadline + 30,
        KEEP_ALIVE_TIMEOUT=KEEP_ALIVE_SECONDS,
        GRACEFUL_SHUTDOWN_TIMEOUT=settings.stop_timeout,
    )


async def _open(app: Sanic[Any, Any]) -> None:
    context: ApiContext = app.ctx.context

    def fatal(error: BaseException) -> None:
        log.error("fatal_error", reason=type(error).__name__, detail=describe_for_log(error))
        context.fatal = error
        stop_app(app, lambda: context.draining)

    context.committers.open(fatal)
    context.metrics.pending_usages.set_function(lambda: context.committers.admission.count)
    context.metrics.connections.set_function(lambda: len(context.connections.live))
    context.metrics.receiving_bytes.set_function(lambda: context.budget.used_bytes)
    context.connections.on_refused = context.metrics.connections_refused.inc
    context.metrics.durability_held.set_function(
        lambda: not any(committer.durability_error for committer in context.committers.committers)
    )
    for committer in context.committers.committers:
        context.metrics.committers_ready.labels(committer.partition).set_function(
            partial(_read_ready, committer)
        )
        context.metrics.last_seq.labels(committer.partition).set_function(
            partial(_read_last_seq, committer)
        )
    settings = context.settings
    app.ctx.metrics_port = MetricsPort(
        context.metrics.choose_renderer,
        ConnectionLimits(settings.request_deadline, settings.max_header, context.budget),
    )
    await app.ctx.metrics_port.open(settings.metrics_port)
    log.info(
        "api_started",
        port=context.settings.port,
        metrics=context.settings.metrics_port,
        loop=type(asyncio.get_running_loop()).__module__.partition(".")[0],
    )


def _read_ready(committer: Committer) -> float:
    return float(committer.is_ready)


def _read_last_seq(committer: Committer) -> float:
    return float(committer.highest_seq)


async def _install_signal_handlers(app: Sanic[Any, Any]) -> None:
    context: ApiContext = app.ctx.context
    install_stop_signals(app, lambda: context.draining)


async def _tune_garbage_collector(_app: Sanic[Any, Any]) -> None:
    """Take what the start left out of the collector's sight, once it is all there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 10, 10)


async def _drain(app: Sanic[Any, Any]) -> None:
    context: ApiContext = app.ctx.context
    if context.draining:
        return  # Sanic may call this twice
    context.draining = True
    log.info("draining", seconds=context.settings.drain_delay)
    if context.fatal is None:
        # Connections are still accepted: endpoints forget a pod seconds after its SIGTERM.
        await asyncio.sleep(context.settings.drain_delay)
    close_idle_connections()


async def _close(app: Sanic[Any, Any]) -> None:
    context: ApiContext = app.ctx.context
    await context.committers.close(context.settings.stop_timeout)
    for reader in context.readers:
        await reader.close()
    await context.archive.close()
    await app.ctx.metrics_port.close()
    log.info("api_stopped")


def serve(context: ApiContext) -> int:
    """Serve until SIGTERM or SIGINT; give the process's exit code."""
    app = make_app(context)
    sock = open_listener(context.settings.port)
    most = raise_open_files_limit(context.settings.max_connections)
    context.connections = ConnectionTable(
        most, ConnectionRefuser(make_overload_probes(context), stored="no")
    )
    app.run(
        sock=sock,
        protocol=make_protocol(context),
        backlog=BACKLOG,
        single_process=True,
        register_sys_signals=False,
        access_log=False,
        motd=False,
    )
    return 1 if context.fatal else 0
