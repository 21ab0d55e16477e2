"""Put load on a busyapi, and check that every answered usage is archived once."""

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
from loadtest.cluster import Cluster
from loadtest.compare import compare
from loadtest.options import parse
from loadtest.reconcile import Row, ToolCounts, find_disagreements, reconcile, table
from loadtest.result import read
from loadtest.target import State, Target, Unreachable

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def print_progress(line: str) -> None:
    """Write progress at once to stderr; stdout is for the results."""
    sys.stderr.write(f"loadtest: {line}\n")
    sys.stderr.flush()


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return the exit code."""
    options = parse(arguments)
    try:
        code = COMMANDS[options.command](options)
    except ModuleNotFoundError as error:
        print_progress(
            f"{error.name} is not in {sys.executable}: use the environment that make creates, .venv"
        )
        return EXIT_USAGE
    except (Unreachable, OSError, ValueError, subprocess.TimeoutExpired) as error:
        print_progress(str(error))
        return EXIT_USAGE
    except KeyboardInterrupt:
        return 130
    return code


@contextmanager
def _target(options: argparse.Namespace) -> Iterator[Target]:
    if options.namespace:
        yield Cluster(options.url, options.host, options.namespace, options.release)
    elif options.url:
        yield Target(options.url, options.host, options.archive)
    else:
        # Imported here: a remote target needs no Valkey on this machine.
        from loadtest.local import start_local  # noqa: PLC0415

        with tempfile.TemporaryDirectory(prefix="busyapi-loadtest-") as folder:
            print_progress(f"starting Valkey, a flusher and {options.processes} API processes")
            with start_local(
                Path(folder), options.processes, token=getattr(options, "token", False)
            ) as target:
                yield target


def _run(options: argparse.Namespace) -> int:
    # Imported here: the library that draws takes a second to load.
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
        result = run(target, plan, print_progress)
    print_progress(f"see {write(result, options.to)}")
    if result.openloop["created"]:
        latency = result.openloop["latency"]
        percentiles = ", ".join(
            f"{name.replace('p999', 'p99.9')} {ms:g}" for name, ms in latency.items()
        )
        sys.stdout.write(f"open loop, ms from the planned time: {percentiles}\n")
    return _verdict(result.rows, result.failures)


def _k6(options: argparse.Namespace) -> int:
    k6.find()  # before a stack is started for it
    with _target(options) as target:
        before = target.wait_settled()
        outcome = k6.run(options.script, target, dict(options.env))
        after = target.wait_settled()
    row = reconcile(outcome.counts, before, after)
    return _verdict([row], [*find_disagreements(outcome.counts, row), *outcome.failures])


def _snapshot(options: argparse.Namespace) -> int:
    with _target(options) as target:
        sys.stdout.write(json.dumps(asdict(target.wait_settled())) + "\n")
    return EXIT_OK


def _reconcile(options: argparse.Namespace) -> int:
    if options.k6_log:
        counts = k6.read_log(options.tool, options.k6_log.read_text())
    else:
        counts = ToolCounts(
            options.tool, options.sent, options.created, options.refused, options.unknown
        )
    before = State.read(options.before)
    with _target(options) as target:
        row = reconcile(counts, before, target.wait_settled())
    return _verdict([row], find_disagreements(counts, row))


def _compare(options: argparse.Namespace) -> int:
    sys.stdout.write(compare(read(options.a), read(options.b)) + "\n")
    return EXIT_OK


def _verdict(rows: list[Row], failures: list[str]) -> int:
    sys.stdout.write(table(rows) + "\n")
    if not all(row.proven for row in rows):
        sys.stdout.write(
            "archived: by the API's count; to verify the archive, use --archive or --namespace\n"
        )
    for failure in failures:
        sys.stdout.write(f"FAILED {failure}\n")
    if not failures:
        sys.stdout.write("all counts agree\n")
    return EXIT_FAILED if failures else EXIT_OK


COMMANDS = {
    "run": _run,
    "k6": _k6,
    "snapshot": _snapshot,
    "reconcile": _reconcile,
    "compare": _compare,
}


if __name__ == "__main__":
    sys.exit(main())
