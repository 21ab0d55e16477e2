"""The command `busyapi dev` and its options."""

import argparse
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from busyapi.argument_types import whole_number
from busyapi.dev.command_text import format_path, format_this_command
from busyapi.dev.plan import LOOPBACK, MAX_PORT, Plan
from busyapi.errors import ConfigError
from busyapi.settings import Settings

MAX_CHILDREN = 256
DESCRIPTION = """\
Start all parts of busyapi on this machine and keep them running: a Valkey, API processes that share
one port, and a flusher for each partition. Ctrl-C stops everything; a second Ctrl-C kills at once.
Without credentials (BUSYAPI_TOKENS_FILE) every client that reaches the port may write and read.

All data is kept in one folder (--state). The next start continues with it, also after a kill -9 of
every process: valkey/ is the buffer, archive/ the archive, log/ has a log for each process.
"""
EPILOG = """\
Settings of the parts are environment variables: see docs/reference/settings.md.
BUSYAPI_METRICS_PORT is the metrics port of the first API process and BUSYAPI_FLUSHER_PORT the port
of the first flusher; the others use the ports that follow. The addresses of Redis and of the
flushers, with their secret, and the archive's folder are set here and not by the environment.

examples:
  busyapi dev
  busyapi dev --port 8080 --processes 4
  busyapi dev --state /var/tmp/usages --partitions 2
  BUSYAPI_VALIDATION=lenient busyapi dev
  busyapi dev --redis redis://127.0.0.1:6379
"""


def add_command(commands: Any, settings: Settings, environment: Mapping[str, str]) -> None:
    """Add `dev`. Its children get this environment, with a few variables replaced."""
    parser = commands.add_parser(
        "dev",
        help="run all parts on this machine",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port",
        type=whole_number(1, MAX_PORT, "a TCP port"),
        default=settings.port,
        metavar="N",
        help="where devices post usages (default: PORT, now %(default)s)",
    )
    parser.add_argument(
        "--host",
        default=settings.host or LOOPBACK,
        metavar="ADDRESS",
        help="the API's address; 0.0.0.0: every address of this machine, for other machines too"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=whole_number(1, MAX_CHILDREN, "a number of processes"),
        default=2,
        metavar="N",
        help="API processes (default: %(default)s)",
    )
    parser.add_argument(
        "--partitions",
        type=whole_number(1, MAX_CHILDREN, "a number of partitions"),
        default=settings.partitions,
        metavar="N",
        help="may grow, and shrink again to that of the folder's first start (default:"
        " BUSYAPI_PARTITIONS, now %(default)s)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(".busyapi"),
        metavar="DIR",
        help="the folder with all data (default: %(default)s)",
    )
    parser.add_argument("--redis", metavar="URL", help="use this server, start no Valkey")
    parser.add_argument(
        "--lake",
        action="store_true",
        help="keep an Iceberg table of finished segments, in lake/ of --state unless"
        " BUSYAPI_LAKE_WAREHOUSE is set",
    )

    def run(options: argparse.Namespace, settings: Settings) -> int:
        from busyapi.dev.run import run  # noqa: PLC0415 - other commands need no asyncio

        plan = Plan(
            host=options.host,
            port=options.port,
            processes=options.processes,
            partitions=options.partitions,
            existing=_count_partitions(options.state, options.partitions),
            state=options.state.absolute(),
            redis_url=options.redis or "",
            has_lake=options.lake,
            settings=settings,
            environment=environment,
        )
        return run(plan)

    parser.set_defaults(run=run)


def _count_partitions(state: Path, partitions: int) -> int:
    """Return how many partitions an existing state folder has.

    Raises:
        ConfigError: it cannot have so few.
    """
    archive = state / "archive"
    with suppress(OSError, ValueError, KeyError):
        base: int = json.loads((archive / "p00" / "partition.json").read_text())["partitions"]
        if partitions < base:
            raise ConfigError(
                f"{format_path(state)} was created with {base} partitions, and cannot have fewer."
                f" Type: {format_this_command('--partitions', str(base))}; or choose another"
                " folder with --state"
            )
    return len(list(archive.glob("p[0-9][0-9]*")))
