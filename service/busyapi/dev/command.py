"""The command line of `busyapi dev`."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

from busyapi.dev.parts import Plan
from busyapi.dev.run import check_ports, lock, run
from busyapi.errors import ConfigError
from busyapi.settings import Settings

DESCRIPTION = """\
Run all of busyapi on this machine: a Valkey of its own, API processes on one port, a flusher for
each partition. A process that dies is started again. Ctrl-C stops all of it in order.
"""
EPILOG = """\
examples:
  busyapi dev                                      port 3000, state in ./.busyapi
  busyapi dev --port 3001 --state /tmp/another
  busyapi dev --redis redis://127.0.0.1:6379       a Redis that runs already

Ports besides --port: metrics from BUSYAPI_METRICS_PORT on (9090), flushers from
BUSYAPI_FLUSHER_PORT on (9100). Every other setting is taken from the environment too.
"""


def add_command(commands: Any, settings: Settings) -> None:
    """Add `dev` to the command line."""
    parser = commands.add_parser(
        "dev",
        help="run everything on this machine",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port", type=int, default=settings.port, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--processes", type=int, default=2, metavar="N", help="API processes; default: %(default)s"
    )
    parser.add_argument(
        "--partitions",
        type=int,
        default=settings.partitions,
        metavar="N",
        help="default: %(default)s; a state folder keeps the number it began with",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(".busyapi"),
        metavar="DIR",
        help="Valkey's data, the archive and the logs, kept between runs; default: %(default)s",
    )
    parser.add_argument(
        "--redis", default="", metavar="URL", help="use this Redis instead of a Valkey of our own"
    )
    parser.set_defaults(run=_dev)


def _dev(options: argparse.Namespace, settings: Settings) -> int:
    for name in ("port", "processes", "partitions"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} must be at least 1")
    state = options.state.resolve()
    plan = Plan(
        state=state,
        port=options.port,
        processes=options.processes,
        partitions=options.partitions,
        redis=options.redis,
        settings=settings,
        lock=lock(state),
    )
    check_ports(plan)
    return asyncio.run(run(plan))
