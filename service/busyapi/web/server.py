"""The limit of open files, and a reliable stop."""

import asyncio
import resource
import signal
from collections.abc import Callable
from typing import Any

import structlog
from sanic import Sanic

log = structlog.get_logger()

STOP_RETRY_SECONDS = 0.1
RESERVED_FILES = 1408
"""Files other than served connections: Redis and the archive (128), the metrics port (256), and, on
both ports, connections that get a last response because they were refused (256) or gave up their
place (256)."""


def stop_app(app: Sanic[Any, Any], stopping: Callable[[], bool]) -> None:
    """Stop a server from within its process, even while it is still starting.

    During Sanic's start-up a stop of the loop ends only the current step, so it is repeated until
    `stopping` returns true.
    """
    if not stopping():
        app.stop(terminate=False)
        asyncio.get_running_loop().call_later(STOP_RETRY_SECONDS, stop_app, app, stopping)


def install_stop_signals(app: Sanic[Any, Any], stopping: Callable[[], bool]) -> None:
    """Stop a server at the first SIGTERM or SIGINT, and ignore later ones: a stop has a deadline.

    Sanic removes its own handlers when it stops, so a second signal would kill the process during
    the stop. A killed `busyapi dev` signals its children once for each of its threads. Call this
    after the server's start, until which Sanic ignores both signals, and with
    `register_sys_signals=False`.
    """
    loop = asyncio.get_running_loop()
    signals = signal.SIGTERM, signal.SIGINT

    def stop_once(*_: object) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        loop.call_soon_threadsafe(stop_app, app, stopping)

    for number in signals:
        signal.signal(number, stop_once)


def raise_open_files_limit(connections: int) -> int:
    """Raise the limit of open files for so many connections; return how many it then allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    required = connections + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < required:
        allowed = required if hard == resource.RLIM_INFINITY else min(required, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
        soft = max(soft, allowed)
        if soft < required:
            log.warning(
                "open_files_limit_low", connections=soft - RESERVED_FILES, configured=connections
            )
            return max(1, soft - RESERVED_FILES)
    return connections
