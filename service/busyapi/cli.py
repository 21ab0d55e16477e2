"""The command line: the only place that reads settings and wires the parts together."""

import argparse
import os
import socket
import sys
from importlib.metadata import version
from pathlib import Path

from busyapi.archive_cli import commands as archive_commands
from busyapi.dev import command as dev_command
from busyapi.errors import BusyapiError, ConfigError
from busyapi.settings import Settings
from busyapi.sizing import command as sizing_command
from busyapi.telemetry import logs

EPILOG = """\
Settings are environment variables: see docs/reference/settings.md.
To try it on this machine, with nothing else installed: busyapi dev
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; give the exit code: 0 fine, 1 failed, 2 asked for wrongly."""
    try:
        try:
            settings = Settings.from_environment()
            options = _parser(settings).parse_args(arguments)
            return int(options.run(options, settings))
        finally:
            # Here, where it is told what went wrong; also for --help, which leaves by SystemExit.
            sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has seen enough. Python must not find the pipe again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ConfigError as error:
        print(f"busyapi: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except (BusyapiError, OSError) as error:
        print(f"busyapi: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130


def _parser(settings: Settings) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="busyapi",
        description="Takes inhaler usages over HTTP, gives each an id, keeps every one.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"busyapi {version('busyapi')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    api = commands.add_parser("api", help="take usages over HTTP", description=_api.__doc__)
    api.set_defaults(run=_api)
    flusher = commands.add_parser(
        "flusher", help="archive one partition", description=_flusher.__doc__
    )
    flusher.add_argument(
        "--partition", type=int, required=True, metavar="N", help="which one, from 0"
    )
    flusher.set_defaults(run=_flusher)
    archive_commands.add_commands(commands, Path(settings.archive_dir))
    dev_command.add_command(commands, settings, os.environ)
    sizing_command.add_command(commands)
    return parser


def _api(_: argparse.Namespace, settings: Settings) -> int:
    """Take usages on PORT, and answer Prometheus on BUSYAPI_METRICS_PORT."""
    from busyapi.wiring.api import run_api  # noqa: PLC0415 - the archive commands need no web server

    if settings.port == settings.metrics_port != 0:
        raise ConfigError("PORT and BUSYAPI_METRICS_PORT must differ")
    logs.configure_logging(settings.log_level, role="api", pod=socket.gethostname())
    return run_api(settings)


def _flusher(options: argparse.Namespace, settings: Settings) -> int:
    """Archive one partition into BUSYAPI_ARCHIVE_DIR."""
    from busyapi.wiring.flusher import run_flusher  # noqa: PLC0415 - likewise

    if not 0 <= options.partition < settings.partitions:
        raise ConfigError(
            f"--partition must be from 0 to {settings.partitions - 1}:"
            f" BUSYAPI_PARTITIONS is {settings.partitions}"
        )
    context = {"role": "flusher", "partition": options.partition, "pod": socket.gethostname()}
    logs.configure_logging(settings.log_level, **context)
    return run_flusher(settings, options.partition)
