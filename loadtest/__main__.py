"""Put load on a busyapi, and prove that every usage that was answered is archived once."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from loadtest import k6
from loadtest.bodies import Mix
from loadtest.cluster import Cluster
from loadtest.compare import compare
from loadtest.reconcile import Row, Said, disagreements, reconcile, table
from loadtest.result import read
from loadtest.target import State, Target, Unreachable

ROOT = Path(__file__).parents[1]
FINE, FAILED, WRONG = 0, 1, 2

EPILOG = """\
examples:
  python -m loadtest run
  python -m loadtest run --rate 5000 --url http://localhost:3000 --archive .busyapi/archive
  python -m loadtest run --url http://127.0.0.1:8080 --host usages.example.org \\
      --namespace busyapi --release busyapi
  python -m loadtest k6 spike --url http://localhost:3000 --archive .busyapi/archive --env RATE=100
  python -m loadtest compare build/before/result.json build/loadtest/result.json

Exit code: 0 when all counts agree and every threshold held, 1 when not, 2 when it could not run.
Nobody else may send to the same busyapi meanwhile: what others stored would be in its counts.
"""


def tell(line: str) -> None:
    """Say at once what goes on; stdout is for what was found."""
    sys.stderr.write(f"loadtest: {line}\n")
    sys.stderr.flush()


def main(arguments: list[str] | None = None) -> int:
    """Do what is asked; give the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.act(options)
    except (Unreachable, OSError, ValueError, subprocess.TimeoutExpired) as error:
        tell(str(error))
        return WRONG
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="open loop and k6, with a report in HTML and JSON"))
    script = commands.add_parser("k6", help="one k6 script, reconciled")
    script.add_argument("script", choices=k6.NAMES)
    script.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    _add_target(script)
    script.set_defaults(act=_k6)
    snapshot = commands.add_parser(
        "snapshot", help="write down the counts before another tool runs"
    )
    _add_target(snapshot)
    snapshot.set_defaults(act=_snapshot)
    _add_reconcile(
        commands.add_parser("reconcile", help="and hold that tool's counts against them")
    )
    two = commands.add_parser("compare", help="two results beside each other")
    two.add_argument("a", type=Path, metavar="A.json")
    two.add_argument("b", type=Path, metavar="B.json")
    two.set_defaults(act=_compare)
    return parser


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="of a running busyapi (default: one is started)")
    parser.add_argument("--archive", type=Path, metavar="DIR", help="its archive, when it is here")
    parser.add_argument("--host", default="", help="Host header, for an ingress")
    parser.add_argument("--namespace", help="its archive is reached by kubectl exec, here")
    parser.add_argument("--release", default="busyapi", help="in it (default: %(default)s)")
    parser.add_argument(
        "--processes", type=int, default=2, help="API processes of our own (default: %(default)s)"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_target(parser)
    parser.add_argument(
        "--rate", type=float, default=16_667, help="a second (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=60, help="default: %(default)s")
    parser.add_argument("--warm-up", type=float, default=3, help="seconds (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--devices", type=int, default=Mix.devices, help="default: %(default)s")
    parser.add_argument(
        "--invalid", type=float, default=Mix.invalid, help="share (default: %(default)s)"
    )
    parser.add_argument("--even", action="store_true", help="even arrivals, not Poisson")
    parser.add_argument(
        "--k6", nargs="*", default=["smoke"], choices=k6.NAMES, help="scripts (default: smoke)"
    )
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "loadtest", metavar="DIR")
    parser.set_defaults(act=_run)


def _add_reconcile(parser: argparse.ArgumentParser) -> None:
    _add_target(parser)
    parser.add_argument("before", type=Path, metavar="SNAPSHOT.json")
    parser.add_argument("--k6-log", type=Path, metavar="FILE", help="of a Job, instead of counts")
    parser.add_argument("--tool", default="k6")
    for name in ("sent", "created", "refused", "unknown"):
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N")
    parser.set_defaults(act=_reconcile)


@contextmanager
def _target(options: argparse.Namespace) -> Iterator[Target]:
    if options.namespace:
        yield Cluster(options.url, options.host, options.namespace, options.release)
    elif options.url:
        yield Target(options.url, options.host, options.archive)
    else:
        # Only here: a remote target needs no Valkey on this machine.
        from loadtest.local import started  # noqa: PLC0415

        with tempfile.TemporaryDirectory(prefix="busyapi-loadtest-") as folder:
            tell(f"starting Valkey, a flusher and {options.processes} API processes")
            with started(Path(folder), options.processes) as target:
                yield target


def _run(options: argparse.Namespace) -> int:
    # Only here: what draws takes a second to load.
    from loadtest.report import write  # noqa: PLC0415
    from loadtest.run import Plan, run  # noqa: PLC0415

    plan = Plan(
        rate=options.rate,
        seconds=options.seconds,
        connections=options.connections,
        devices=options.devices,
        invalid=options.invalid,
        even=options.even,
        scripts=tuple(options.k6),
        warm_up=options.warm_up,
    )
    with _target(options) as target:
        result = run(target, plan, tell)
    tell(f"see {write(result, options.to)}")
    latency = result.openloop["latency"]
    told = ", ".join(f"{name.replace('p999', 'p99.9')} {ms:g}" for name, ms in latency.items())
    sys.stdout.write(f"open loop, ms from the planned time: {told}\n")
    return _verdict(result.rows, result.failures)


def _k6(options: argparse.Namespace) -> int:
    settings = dict(each.split("=", 1) for each in options.env)
    with _target(options) as target:
        before = target.settled()
        outcome = k6.run(options.script, target, settings)
        after = target.settled()
    row = reconcile(outcome.said, before, after)
    crossed = [] if outcome.passed else ["a threshold was crossed"]
    return _verdict([row], [*disagreements(outcome.said, row), *crossed])


def _snapshot(options: argparse.Namespace) -> int:
    with _target(options) as target:
        sys.stdout.write(json.dumps(asdict(target.settled())) + "\n")
    return FINE


def _reconcile(options: argparse.Namespace) -> int:
    if options.k6_log:
        said = k6.of_log(options.tool, options.k6_log.read_text())
    else:
        said = Said(options.tool, options.sent, options.created, options.refused, options.unknown)
    before = State.of(json.loads(options.before.read_text()))
    with _target(options) as target:
        row = reconcile(said, before, target.settled())
    return _verdict([row], disagreements(said, row))


def _compare(options: argparse.Namespace) -> int:
    sys.stdout.write(compare(read(options.a), read(options.b)) + "\n")
    return FINE


def _verdict(rows: list[Row], failures: list[str]) -> int:
    sys.stdout.write(table(rows) + "\n")
    if not all(each.proven for each in rows):
        sys.stdout.write("archived: as the API says; name its archive to have it proven\n")
    for each in failures:
        sys.stdout.write(f"FAILED {each}\n")
    if not failures:
        sys.stdout.write("all counts agree\n")
    return FAILED if failures else FINE


if __name__ == "__main__":
    sys.exit(main())
