"""The benchmark's command line."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import redis

from bench.markdown import render
from bench.measure import measure
from bench.plot import plot
from bench.progress import print_progress
from bench.report import Report
from bench.scenarios import SCENARIOS, Scenario, make_comparisons, select_scenarios
from busyapi.argument_types import whole_number
from perf import wrk
from perf.machine import describe_machine

EPILOG = """\
The benchmark starts all programs on free ports and in a temporary folder, and removes them at its
end. Runs of different programs take turns, each after a warm-up of two seconds, and the table shows
the median. With the defaults it takes about twenty minutes, the scenario `peers` alone six.
Nothing else should run on the machine.

The exit code only covers correctness: 0 if every usage that was answered with 201 is in the archive
once and there was no other answer; 1 if not; 2 if the benchmark cannot run. The report shows
whether the goals are met.

scenarios:
"""

SCENARIO_ERRORS = (
    wrk.WrkFailed,
    RuntimeError,
    OSError,
    ValueError,
    HTTPException,
    redis.RedisError,
)
"""Errors that end one scenario. A wait that times out is an OSError that names the condition."""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        wrk.find()
        report = _run(options)
    except wrk.WrkMissing as error:
        print_progress(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    if options.plot:
        for name, rows in report.scenarios.items():
            about = next(
                scenario.about for scenario in _scenarios(options) if scenario.name == name
            )
            plot(about, rows, options.plot / f"{name}.png")
    if options.json:
        options.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    sys.stdout.write(render(report))
    return 1 if report.failures else 0


def _run(options: argparse.Namespace) -> Report:
    settings = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "connections": options.connections,
    }
    with make_temporary_folder(options.folder) as folder:
        report = Report(describe_machine(folder), settings, {}, [])
        if not report.machine.on_disk:
            print_progress(f"{options.folder} is in memory: choose a --folder on disk")
        for scenario in _scenarios(options):
            try:
                report.scenarios[scenario.name] = measure(scenario, folder, **settings)
            except SCENARIO_ERRORS as error:
                # The other scenarios may still succeed.
                report.errors.append(f"{scenario.name}: {type(error).__name__}: {error}")
                print_progress(report.errors[-1])
    return report


def _scenarios(options: argparse.Namespace) -> list[Scenario]:
    # --before runs alone unless other scenarios are named: it compares two checkouts.
    compared = make_comparisons(options.before) if options.before else ()
    return [
        *compared,
        *(select_scenarios(options.scenario) if options.scenario or not compared else ()),
    ]


@contextmanager
def make_temporary_folder(parent: Path) -> Iterator[Path]:
    """Provide a temporary folder, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="busyapi-bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure how fast busyapi is on this machine, compared with a no-op of Sanic.",
        epilog=EPILOG
        + "".join(f"  {scenario.name:12}{scenario.about}\n" for scenario in SCENARIOS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--scenario",
        action="append",
        default=[],
        choices=[scenario.name for scenario in SCENARIOS],
        help="run only this scenario; repeat the option for several",
    )
    parser.add_argument(
        "--seconds",
        type=whole_number(1),
        default=8,
        metavar="N",
        help="seconds of one run (default 8)",
    )
    parser.add_argument(
        "--rounds",
        type=whole_number(1),
        default=3,
        metavar="N",
        help="runs of each scenario (default 3)",
    )
    parser.add_argument(
        "--connections",
        type=whole_number(wrk.THREADS),
        default=256,
        metavar="N",
        help="connections of wrk (default 256); the scenario `proxies` always has 64",
    )
    parser.add_argument(
        "--folder",
        type=_folder,
        default=Path("/var/tmp"),  # noqa: S108 - a temporary folder is made in it
        metavar="DIR",
        help="a folder on the disk for Valkey and the archive (default /var/tmp)",
    )
    parser.add_argument(
        "--before",
        type=_checkout,
        metavar="DIR",
        help="a folder with another checkout: measure its service in turns with this one,"
        " posts and batches",
    )
    parser.add_argument(
        "--json", type=_new_file, metavar="FILE", help="also write everything as JSON"
    )
    parser.add_argument(
        "--plot", type=_folder, metavar="DIR", help="also draw each scenario, as DIR/SCENARIO.png"
    )
    return parser


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return path


def _checkout(text: str) -> Path:
    path = Path(text)
    if not (path / "service" / "busyapi").is_dir():
        raise argparse.ArgumentTypeError(
            f"{text} is not a checkout: it has no folder service/busyapi"
        )
    return path


def _new_file(text: str) -> Path:
    # Fail now, not after minutes of measuring.
    path = Path(text)
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} cannot be written")
    return path
