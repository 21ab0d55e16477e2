"""The command line: the only place that reads settings and connects the parts."""

import argparse
import dataclasses
import inspect
import os
import socket
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from busyapi.errors import BusyapiError, ConfigError
from busyapi.output import OutputFailed, discard_output, flush_output
from busyapi.renamed_settings import warn_of_old_names
from busyapi.settings import Settings
from busyapi.telemetry import logs
from busyapi.web.listener import PortUnavailable, open_listener

EPILOG = """\
Settings are environment variables: see docs/reference/settings.md.
To run everything on this machine, without other software: busyapi dev
"""
API_EPILOG = """\
There is no --port: settings are environment variables, and so are the ports. For example
  PORT=8080 BUSYAPI_METRICS_PORT=9091 busyapi api
All of them: docs/reference/settings.md
"""
FLUSHER_EPILOG = """\
Other settings are environment variables, and so are the port and the folder. For example
  BUSYAPI_FLUSHER_PORT=9200 BUSYAPI_ARCHIVE_DIR=/srv/archive busyapi flusher --partition 0
All of them: docs/reference/settings.md
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Return the exit code: 0 success, 1 failure, 2 usage error."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # numpy, which `archive verify` and pyarrow load, starts a thread for each core. None has work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Arrow's mimalloc gives pages back to the kernel and soon asks for them again. With malloc, an
    # export takes 5 % less CPU, and `busyapi lake` a tenth less memory. Only here it also holds for
    # the readers of Parquet.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        try:
            settings = Settings.from_environment()
            parser = _parser(settings, is_server=arguments[:1] in (["api"], ["flusher"]))
            options, unknown = parser.parse_known_args(arguments)
            if unknown:
                parser.error(_describe_unknown(options, unknown))
            return int(options.run(options, settings))
        finally:
            # Here, so that a failure is reported below; also for --help, which raises SystemExit.
            flush_output()
    except BrokenPipeError:
        discard_output()  # the reader closed the pipe
        return 0
    except OutputFailed as error:
        print(f"busyapi: {error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201
        discard_output()
        return 1
    except ConfigError as error:
        print(f"busyapi: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except (BusyapiError, OSError) as error:
        print(f"busyapi: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130


def _parser(settings: Settings, *, is_server: bool = False) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="busyapi",
        description="Receive inhaler usages over HTTP, give each one an id and archive it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"busyapi {version('busyapi')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    api = commands.add_parser(
        "api",
        help="receive usages over HTTP",
        description=_api.__doc__,
        epilog=API_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    api.set_defaults(run=_api, role="api")
    flusher = commands.add_parser(
        "flusher",
        help="archive one partition",
        description=_flusher.__doc__,
        epilog=FLUSHER_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flusher.add_argument(
        "--partition", type=int, required=True, metavar="N", help="its number, from 0"
    )
    flusher.set_defaults(run=_flusher, role="flusher")
    if not is_server:
        _add_tools(commands, settings)
    return parser


def _add_tools(commands: Any, settings: Settings) -> None:
    # A pod starts a tenth of a second earlier without these modules.
    from busyapi.archive_cli import commands as archive_commands  # noqa: PLC0415
    from busyapi.audit_cli import commands as audit_commands  # noqa: PLC0415
    from busyapi.auth import token_command  # noqa: PLC0415
    from busyapi.dev import command as dev_command  # noqa: PLC0415
    from busyapi.lake import command as lake_command  # noqa: PLC0415
    from busyapi.sizing import command as sizing_command  # noqa: PLC0415

    def accept_primary(options: argparse.Namespace) -> int:
        """Continue on a primary that may lack acknowledged usages, in the tier `replicated`.

        Needed if the servers that hold all usages are lost for good, or have other addresses now.
        Prints what each server holds. Usages that the primary lacks are lost, unless they are
        archived. The flusher need not be stopped.
        """
        from busyapi.wiring.flusher import run_accept_primary  # noqa: PLC0415 - likewise

        run_accept_primary(settings, options.dir, options.partition, confirmed=options.yes)
        return 0

    def hand_over(options: argparse.Namespace, settings: Settings) -> int:
        """Make another server the primary of Redis, in the tier `replicated` with Sentinels.

        The flusher chooses a server that holds every acknowledged usage. Needed before work on the
        primary: with `replica-priority 0` everywhere, SENTINEL FAILOVER finds no server to promote.
        """
        from busyapi.wiring.flusher import run_hand_over  # noqa: PLC0415 - likewise

        run_hand_over(settings, options.partition)
        return 0

    archive_commands.add_commands(
        commands,
        Path(settings.archive_dir),
        settings.audit,
        accept_primary,
    )
    audit_commands.add_commands(commands, Path(settings.archive_dir))
    lake_command.add_command(commands, settings)
    handing_over = commands.add_parser(
        "hand-over",
        help="make another server the primary of Redis",
        description=inspect.cleandoc(hand_over.__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    handing_over.add_argument(
        "--partition",
        type=int,
        default=0,
        metavar="N",
        help="a partition of the server (default: 0), if BUSYAPI_REDIS_URL names several",
    )
    handing_over.set_defaults(run=hand_over)
    dev_command.add_command(commands, settings, os.environ)
    sizing_command.add_command(commands)
    token_command.add_command(commands)


def _describe_unknown(options: argparse.Namespace, unknown: list[str]) -> str:
    """Return the error for arguments that no command has; an option may be meant as a setting."""
    problem = f"unrecognized arguments: {' '.join(unknown)}"
    role = getattr(options, "role", "")
    if not role:
        return problem
    names = {field.metadata["name"] for field in dataclasses.fields(Settings)}
    word = unknown[0].partition("=")[0].lstrip("-").replace("-", "_").upper()
    for name in (f"BUSYAPI_{role.upper()}_{word}", f"BUSYAPI_{word}", word):
        if name in names:
            return f"{problem}: set the environment variable {name}"
    return f"{problem}. Settings are environment variables: see docs/reference/settings.md"


def _api(_: argparse.Namespace, settings: Settings) -> int:
    """Receive usages on PORT (3000) and serve metrics on BUSYAPI_METRICS_PORT (9090)."""
    if settings.port == settings.metrics_port != 0:
        raise ConfigError("PORT and BUSYAPI_METRICS_PORT must differ")
    logs.configure_logging(settings.log_level, role="api", pod=socket.gethostname())
    warn_of_old_names(os.environ)
    host = settings.host
    try:
        sock = open_listener(settings.port, "PORT", host=host, early=True)
        metrics = open_listener(
            settings.metrics_port, "BUSYAPI_METRICS_PORT", host=host, shared=False
        )
    except PortUnavailable as error:
        error.log()
        return 1
    # After the port is open, because it takes most of the start; and no tool needs a web server.
    from busyapi.wiring.api import run_api  # noqa: PLC0415

    return run_api(settings, sock, metrics)


def _flusher(options: argparse.Namespace, settings: Settings) -> int:
    """Archive one partition in BUSYAPI_ARCHIVE_DIR."""
    from busyapi.wiring.flusher import run_flusher  # noqa: PLC0415 - likewise

    # A partition that left keeps its flusher, so its number may exceed BUSYAPI_PARTITIONS.
    if options.partition < 0:
        raise ConfigError("--partition must be at least 0")
    if settings.flusher_port == settings.archive_port != 0:
        raise ConfigError("BUSYAPI_FLUSHER_PORT and BUSYAPI_ARCHIVE_PORT must differ")
    context = {"role": "flusher", "partition": options.partition, "pod": socket.gethostname()}
    logs.configure_logging(settings.log_level, **context)
    warn_of_old_names(os.environ)
    return run_flusher(settings, options.partition)
