"""`busyapi lake`: its options, and the start of its loop."""

import argparse
import inspect
import os
import re
import signal
import sys
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import structlog

from busyapi.archive_cli.selection import add_partition_option
from busyapi.errors import BusyapiError, ConfigError
from busyapi.settings import Settings
from busyapi.telemetry.logs import configure_logging
from busyapi.web.listener import PortUnavailable

if TYPE_CHECKING:
    from busyapi.lake.loop import LakeLoop

log = structlog.get_logger()

STOP_SECONDS = 3.0
"""For the commit that is under way: a flusher's pod starts again only when all of it has ended."""
POLL_SECONDS = 0.5
_TABLE_NAME = re.compile(r"\w+(\.\w+)+")


class LakeMissing(BusyapiError):
    """This needs pyiceberg: run `.venv/bin/pip install -e '.[lake]'` in a clone."""


def add_command(commands: Any, settings: Settings) -> None:
    """Add `lake`."""
    about = inspect.cleandoc(run_lake.__doc__ or "")
    parser = commands.add_parser(
        "lake",
        help=about.splitlines()[0].rstrip(".").lower(),
        description=about,
        epilog="examples:\n  busyapi lake\n  busyapi lake --once --partition 0\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(settings.archive_dir),
        metavar="PATH",
        help="the folder that holds p00 (default: BUSYAPI_ARCHIVE_DIR, now %(default)s)",
    )
    add_partition_option(parser)
    parser.add_argument(
        "--once", action="store_true", help="run one turn; exit code 1 if it had a problem"
    )
    parser.set_defaults(run=run_lake)


def run_lake(options: argparse.Namespace, settings: Settings) -> int:
    """Keep an Apache Iceberg table in step with the archive.

    Takes each usage of a finished segment into the table once, whatever is killed, and tidies the
    table. Several processes may fill one table, for example one for each partition's volume. The
    one that reads partition 0 joins small files, expires snapshots and deletes orphans. Needs
    pyiceberg: in a clone, run `.venv/bin/pip install -e '.[lake]'`.
    """
    if not _TABLE_NAME.fullmatch(settings.lake_table):
        raise ConfigError(
            "BUSYAPI_LAKE_TABLE must be a namespace and a name, such as busyapi.usages"
        )
    try:
        import pyiceberg  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise LakeMissing from None
    from busyapi.lake.loop import LakeLoop, LoopConfig  # noqa: PLC0415 - loads pyiceberg
    from busyapi.lake.metrics_server import serve_metrics  # noqa: PLC0415 - loads a web server
    from busyapi.lake.progress import ProgressReader  # noqa: PLC0415 - loads pyiceberg
    from busyapi.lake.table import LakeConfig, LakeTable  # noqa: PLC0415 - likewise
    from busyapi.lake.taker import Taker  # noqa: PLC0415 - likewise

    configure_logging(settings.log_level, role="lake")
    warehouse = settings.lake_warehouse or str(options.dir.absolute().parent / "lake")
    lake = LakeTable(LakeConfig(warehouse, settings.lake_catalog, settings.lake_table))
    taker = Taker(lake, options.dir, options.only)
    loop = LakeLoop(
        lake,
        taker,
        LoopConfig(
            settings.lake_interval,
            timedelta(hours=settings.lake_snapshot_hours),
            tidies=options.only in (None, 0),
        ),
    )
    if not options.once:
        progress = ProgressReader(options.dir, options.only, taker, loop.turns)
        try:
            serve_metrics(progress, settings)
        except PortUnavailable as error:
            error.log()
            return 1
    return _run(loop, once=options.once)


def _run(loop: "LakeLoop", *, once: bool) -> int:
    """Run the loop until it ends or a signal stops it, however long the catalog takes to answer.

    What a process leaves undone when it ends, the next one does.
    """
    results: list[bool] = []
    run = (lambda: results.append(loop.run_safely())) if once else loop.run_forever
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop.set())
    worker = Thread(target=run, name="lake", daemon=True)
    worker.start()
    while worker.is_alive() and not loop.stop.is_set():
        worker.join(POLL_SECONDS)
        if loop.is_stuck():
            log.error("lake_stuck")
            if once:
                os._exit(1)
            # Not an end: a container that is started again makes its pod unready for a moment.
            os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this command
    worker.join(STOP_SECONDS)
    code = 0 if (results == [True] if once else loop.stop.is_set()) else 1
    if worker.is_alive():
        os._exit(code)
    return code
