"""`busyapi dev`: what a person may ask for."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from busyapi.dev.plan import HIGHEST_PORT, Plan
from busyapi.errors import ConfigError
from busyapi.settings import Settings

DESCRIPTION = """\
Start all of busyapi on this machine and keep it running: a Valkey, API processes that share one
port, a flusher for each partition. Ctrl-C stops all of it, a second one at once.

What it takes is kept in one folder (--state) and found again by the next start, also after a
kill -9 of everything: valkey/ is the buffer, archive/ the archive, log/ a log for each process.
"""
EPILOG = """\
Settings of the parts are environment variables, as everywhere. BUSYAPI_METRICS_PORT is the
metrics port of the first API process and BUSYAPI_FLUSHER_PORT the port of the first flusher;
the others take the ports that follow. Where Redis, the flushers and the archive are is decided
here, and only here.

examples:
  busyapi dev
  busyapi dev --port 8080 --processes 4
  busyapi dev --state /var/tmp/usages --partitions 2
  BUSYAPI_VALIDATION=lenient busyapi dev
  busyapi dev --redis redis://127.0.0.1:6379
"""


def add_command(commands: Any, settings: Settings, environment: Mapping[str, str]) -> None:
    """Add `dev`; its children get this environment, changed where it must be."""
    parser = commands.add_parser(
        "dev",
        help="run all of it on this machine",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port",
        type=_from_one("a TCP port", HIGHEST_PORT),
        default=settings.port,
        metavar="N",
        help="where devices post usages (default: PORT, now %(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=_from_one("a number of processes"),
        default=2,
        metavar="N",
        help="API processes (default: %(default)s)",
    )
    parser.add_argument(
        "--partitions",
        type=_from_one("a number of partitions"),
        default=settings.partitions,
        metavar="N",
        help="fixed by the first start in a folder (default: BUSYAPI_PARTITIONS, now %(default)s)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(".busyapi"),
        metavar="DIR",
        help="the folder that is kept (default: %(default)s)",
    )
    parser.add_argument("--redis", metavar="URL", help="use this server, and start no Valkey")

    def run(options: argparse.Namespace, settings: Settings) -> int:
        from busyapi.dev.run import run  # noqa: PLC0415 - other commands need no asyncio

        plan = Plan(
            port=options.port,
            processes=options.processes,
            partitions=options.partitions,
            state=options.state.absolute(),
            redis_url=options.redis or "",
            settings=settings,
            environment=environment,
        )
        _check_partitions(plan)
        return run(plan)

    parser.set_defaults(run=run)


def _check_partitions(plan: Plan) -> None:
    # Before a flusher of a partition that never was makes a folder for it.
    found = len(list((plan.state / "archive").glob("p[0-9][0-9]*")))
    if found not in {0, plan.partitions}:
        raise ConfigError(
            f"{plan.state} was begun with {found} partitions: say --partitions {found},"
            " or another --state"
        )


def _from_one(what: str, most: int = 256) -> Any:
    def whole(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} from 1 to {most}")
        return int(text)

    return whole
