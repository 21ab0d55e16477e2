"""The options of the commands. Invalid ones are refused before anything is started."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from busyapi.argument_types import whole_number
from loadtest import k6
from perf.bodies import Mix

ROOT = Path(__file__).parents[1]

EPILOG = """\
examples:
  python -m loadtest run
  python -m loadtest run --rate 5000 --url http://localhost:3000 --archive .busyapi/archive
  python -m loadtest run --url http://127.0.0.1:8080 --host usages.example.org \\
      --namespace busyapi --release busyapi
  python -m loadtest k6 spike --url http://localhost:3000 --archive .busyapi/archive --env RATE=100
  python -m loadtest compare build/before/result.json build/loadtest/result.json

Exit code: 0 when all counts agree and every threshold held, 1 when not, 2 when it could not run.
No other client may send to the same busyapi during the run: its usages would be counted.
"""


def _number(lowest: float, highest: float, what: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        # Also false for NaN.
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text} is not {what}")
        return value

    read.__name__ = "number"  # argparse names it in its error
    return read


MAX_NUMBER = 1e6
"""The maximum of rates and durations: more does not fit into the memory of one machine."""
above_zero = _number(math.ulp(0), MAX_NUMBER, "above 0 and at most a million")
seconds_or_none = _number(0, MAX_NUMBER, "from 0 to a million")
share = _number(0, 1, "from 0 to 1")


def folder(text: str) -> Path:
    """Accept an existing folder: with a misspelled name the archive would be empty."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return Path(text)


def setting(text: str) -> tuple[str, str]:
    """Accept NAME=VALUE: with a misspelled name the script would run with its default."""
    name, equals, value = text.partition("=")
    if not equals or name not in k6.SETTINGS:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=VALUE of {', '.join(k6.SETTINGS)}")
    return name, value


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; exit with 2 and a message if it is invalid."""
    parser, commands = _parser()
    options = parser.parse_args(arguments)
    command = commands[options.command]
    if options.command != "compare" and not options.url:
        for name in ("archive", "host", "namespace"):
            if getattr(options, name):
                command.error(f"--{name} needs --url: it describes a running busyapi")
        if options.command == "run" and options.token and options.k6:
            command.error("--token needs --k6 without a name: the scripts have no token")
    elif options.command == "run" and options.token:
        command.error("--token is for a temporary stack: it needs a run without --url")
    return options


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest",
        description="Put load on a busyapi, and check that every answered usage is archived once.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    parsers: dict[str, argparse.ArgumentParser] = {}
    for name, (text, add) in COMMANDS.items():
        parsers[name] = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}."
        )
        add(parsers[name])
    return parser, parsers


def _add_target(parser: argparse.ArgumentParser, *, running: bool = False) -> None:
    default = "" if running else " (default: start a temporary stack)"
    parser.add_argument("--url", required=running, help=f"URL of a running busyapi{default}")
    archive = parser.add_mutually_exclusive_group()
    archive.add_argument(
        "--archive", type=folder, metavar="DIR", help="its archive, if that is a local folder"
    )
    archive.add_argument(
        "--namespace", metavar="NAME", help="its namespace, to reach the archive by kubectl exec"
    )
    parser.add_argument(
        "--release",
        default="busyapi",
        metavar="NAME",
        help="its release in the namespace (default: %(default)s)",
    )
    parser.add_argument("--host", default="", metavar="NAME", help="Host header, for an ingress")


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--processes",
        type=whole_number(1),
        default=2,
        metavar="N",
        help="API processes of a temporary stack (default: %(default)s)",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_target(parser)
    _add_processes(parser)
    for name, kind, default, what in (
        ("rate", above_zero, 16_667, "requests a second"),
        ("seconds", above_zero, 60, "duration"),
        ("warm-up", seconds_or_none, 3, "seconds before that at a tenth of the rate; 0: none"),
        ("connections", whole_number(1), 256, "maximum number"),
        ("devices", whole_number(1), Mix.devices, "patients"),
        ("invalid", share, Mix.invalid, "share of invalid requests"),
    ):
        parser.add_argument(
            f"--{name}", type=kind, default=default, metavar="N", help=f"{what} ({default:,})"
        )
    parser.add_argument(
        "--token",
        action="store_true",
        help="posts to the temporary stack need a token; use --k6 without a name",
    )
    parser.add_argument("--even", action="store_true", help="even arrivals, not Poisson")
    parser.add_argument(
        "--k6",
        nargs="*",
        default=["smoke"],
        choices=k6.NAMES,
        metavar="SCRIPT",
        help=f"scripts to run: {', '.join(k6.NAMES)} (smoke); none without a name",
    )
    parser.add_argument(
        "--to",
        type=Path,
        default=ROOT / "build" / "loadtest",
        metavar="DIR",
        help="the folder of the report (build/loadtest)",
    )


def _add_k6(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("script", choices=k6.NAMES, metavar="SCRIPT", help=", ".join(k6.NAMES))
    parser.add_argument(
        "--env",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"settings of the script: {', '.join(k6.SETTINGS)}",
    )
    _add_target(parser)
    _add_processes(parser)


def _add_snapshot(parser: argparse.ArgumentParser) -> None:
    _add_target(parser, running=True)


def _add_reconcile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", type=Path, metavar="SNAPSHOT.json")
    _add_target(parser, running=True)
    parser.add_argument(
        "--k6-log", type=Path, metavar="FILE", help="log of a Job, instead of counts"
    )
    parser.add_argument(
        "--tool", default="k6", metavar="NAME", help="name in the table (%(default)s)"
    )
    for name in ("sent", "created", "refused", "unknown"):
        parser.add_argument(
            f"--{name}", type=whole_number(0), default=0, metavar="N", help="usages"
        )


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A.json")
    parser.add_argument("b", type=Path, metavar="B.json")


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "run": ("open loop and k6, with a report in HTML and JSON", _add_run),
    "k6": ("one k6 script, reconciled", _add_k6),
    "snapshot": ("record the counts before another tool runs", _add_snapshot),
    "reconcile": ("check another tool's counts against a snapshot", _add_reconcile),
    "compare": ("compare two results", _add_compare),
}
