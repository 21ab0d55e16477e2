"""The routes and the lifecycle of one API process.

    start   committers connect; the port is open at once; /readyz reports when clients may send
    drain   SIGTERM: /readyz fails; all requests are served; each response closes its connection
    close   no new connections; accepted requests are answered; the committers finish; Redis
            connections close last

Each step is a Sanic listener.
"""

import asyncio
import gc
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from sanic import Request, Sanic
from sanic.response import HTTPResponse

from busyapi.api.context import ApiContext, BackgroundTask, make_handler
from busyapi.api.cors import Cors
from busyapi.api.fast_path import ROUTE
from busyapi.api.lookup import get_count, get_usage
from busyapi.api.pages import get_landing, get_openapi
from busyapi.api.probes import get_livez, get_readyz, make_overload_probes
from busyapi.api.problems import ApiProblemHandler
from busyapi.api.protocol import make_protocol
from busyapi.api.usage_list import list_usages
from busyapi.api.usages import post_batch, post_usage
from busyapi.commit.committer import Committer
from busyapi.errors import describe_for_log
from busyapi.web.connection_refusal import ConnectionRefuser
from busyapi.web.connections import ConnectionTable, close_idle_connections
from busyapi.web.listener import LISTEN_BACKLOG
from busyapi.web.metrics_port import make_metrics_port
from busyapi.web.protocol import ConnectionLimits
from busyapi.web.request import BufferedRequest
from busyapi.web.server import install_stop_signals, raise_open_files_limit, stop_app

log = structlog.get_logger()

READ_METHODS = ["GET", "HEAD"]
GC_THRESHOLD = 5_000
"""Net allocations of containers that start a collection of the youngest generation. A request needs
no collection: reference counts free its objects. With Python's default of 700 one batch starts a
collection, and a full collection of the modules' 60,000 objects blocks the event loop for 60 ms."""

KEEP_ALIVE_SECONDS = 120
"""Longer than the keep-alive of any ingress, so that the ingress closes the connection first."""


def make_app(context: ApiContext) -> Sanic[Any, Any]:
    """Build the Sanic application of a process."""
    app: Sanic[Any, Any] = Sanic(
        "busyapi",
        configure_logging=False,
        error_handler=ApiProblemHandler(),
        request_class=BufferedRequest,
    )
    app.ctx.context = context
    _configure(app, context)
    # With `stream=True` a handler checks the header before it receives the body.
    app.add_route(post_usage, "/api/usages", methods=["POST"], stream=True)
    app.add_route(list_usages, "/api/usages", methods=READ_METHODS)
    app.add_route(post_batch, "/api/usages/batch", methods=["POST"], stream=True)
    app.add_route(get_count, "/api/usages/count", methods=READ_METHODS)
    app.add_route(get_usage, "/api/usages/<usage:int>", methods=READ_METHODS)
    app.add_route(get_landing, "/", methods=READ_METHODS)
    app.add_route(get_openapi, "/openapi.json", methods=READ_METHODS)
    app.add_route(get_livez, "/livez", methods=READ_METHODS)
    app.add_route(get_readyz, "/readyz", methods=READ_METHODS)
    if context.cors:
        _add_cors(app, context.cors)
    app.register_listener(_open, "before_server_start")
    app.register_listener(_install_signal_handlers, "after_server_start")
    app.register_listener(_tune_garbage_collector, "after_server_start")
    app.register_listener(_drain, "before_server_stop")
    app.register_listener(_close, "after_server_stop")
    return app


def _add_cors(app: Sanic[Any, Any], cors: Cors) -> None:
    """Allow pages of other origins to call the API."""

    @make_handler
    async def options(_: ApiContext, request: Request, /, **_parameters: int) -> HTTPResponse:
        return cors.answer_preflight(request)

    for path in (ROUTE, f"{ROUTE}/batch", f"{ROUTE}/count", f"{ROUTE}/<usage:int>"):
        app.add_route(options, path, methods=["OPTIONS"], name=f"options {path}")
    app.register_middleware(cors.add_headers, "response")


def _configure(app: Sanic[Any, Any], context: ApiContext) -> None:
    settings = context.settings
    app.config.update(
        ACCESS_LOG=False,
        MOTD=False,
        REQUEST_MAX_SIZE=settings.max_body,  # for requests that need no body
        REQUEST_TIMEOUT=settings.request_deadline,
        # Never reached by a commit: its own deadline is much shorter.
        RESPONSE_TIMEOUT=settings.commit_deadline + settings.request_deadline + 30,
        KEEP_ALIVE_TIMEOUT=KEEP_ALIVE_SECONDS,
        GRACEFUL_SHUTDOWN_TIMEOUT=settings.stop_timeout,
    )


async def _open(app: Sanic[Any, Any]) -> None:
    context: ApiContext = app.ctx.context

    def stop_on_error(error: BaseException) -> None:
        log.error("fatal_error", reason=type(error).__name__, detail=describe_for_log(error))
        context.fatal = error
        stop_app(app, lambda: context.draining)

    context.committers.open(stop_on_error)
    if context.audit:
        context.audit.open()
    _connect_gauges(context)
    settings = context.settings
    app.ctx.background = [
        asyncio.create_task(_run_in_background(run, stop_on_error)) for run in context.background
    ]
    app.ctx.metrics_port = make_metrics_port(
        context.metrics.choose_renderer,
        ConnectionLimits(settings.request_deadline, settings.max_header, context.budget),
    )
    await app.ctx.metrics_port.open(app.ctx.metrics_socket)
    log.info(
        "api_started",
        port=settings.port,
        metrics=settings.metrics_port,
        loop=type(asyncio.get_running_loop()).__module__.partition(".")[0],
    )


async def _run_in_background(
    run: BackgroundTask, stop_on_error: Callable[[BaseException], None]
) -> None:
    """Run until cancelled. A process that no longer sees revoked credentials must not continue."""
    try:
        await run()
    except Exception as error:  # noqa: BLE001 - every defect, also an unknown one
        stop_on_error(error)


def _connect_gauges(context: ApiContext) -> None:
    """Let each scrape read the current values."""
    metrics, committers = context.metrics, context.committers.committers
    metrics.pending_usages.set_function(lambda: context.committers.admission.count)
    metrics.connections.set_function(lambda: len(context.connections.live))
    metrics.receiving_bytes.set_function(lambda: context.budget.used_bytes)
    context.connections.on_refused = metrics.connections_refused.inc
    metrics.durability_met.set_function(
        lambda: not any(committer.durability_error for committer in committers)
    )
    metrics.durability_trusted.set_function(
        lambda: any(committer.inspector.trust for committer in committers)
    )
    for committer in committers:
        partition = committer.partition
        metrics.committers_ready.labels(partition).set_function(partial(_read_ready, committer))
        metrics.last_seq.labels(partition).set_function(partial(_read_last_seq, committer))


def _read_ready(committer: Committer) -> float:
    return float(committer.is_ready)


def _read_last_seq(committer: Committer) -> float:
    return float(committer.highest_seq)


async def _install_signal_handlers(app: Sanic[Any, Any]) -> None:
    context: ApiContext = app.ctx.context
    install_stop_signals(app, lambda: context.draining)


async def _tune_garbage_collector(_app: Sanic[Any, Any]) -> None:
    """Exclude the objects made at start from later collections."""
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
        # Connections are still accepted: endpoints list a pod for seconds after its SIGTERM.
        await asyncio.sleep(context.settings.drain_delay)
    close_idle_connections()


async def _close(app: Sanic[Any, Any]) -> None:
    context: ApiContext = app.ctx.context
    for task in app.ctx.background:
        task.cancel()
    await asyncio.gather(*app.ctx.background, return_exceptions=True)
    await context.committers.close(context.settings.stop_timeout)
    await context.finder.close()
    if context.portion_pool:
        await context.portion_pool.close()
    if context.audit:
        await context.audit.close()
    await context.archive.close()
    await app.ctx.metrics_port.close()
    log.info("api_stopped")


def serve(context: ApiContext, sock: socket.socket, metrics_socket: socket.socket) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code of the process."""
    app = make_app(context)
    settings = context.settings
    app.ctx.metrics_socket = metrics_socket
    max_connections = raise_open_files_limit(settings.max_connections)
    context.connections = ConnectionTable(
        max_connections, ConnectionRefuser(make_overload_probes(context), stored="no")
    )
    app.run(
        sock=sock,
        protocol=make_protocol(context),
        backlog=LISTEN_BACKLOG,
        single_process=True,
        register_sys_signals=False,
        access_log=False,
        motd=False,
    )
    return 1 if context.fatal else 0
