"""The open-loop generator as a separate program, so that nothing else delays its requests."""

import argparse
import json
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from busyapi.argument_types import whole_number
from loadtest.figures import summarise
from loadtest.generator import Generator, plan_times
from loadtest.native import Native, compile_program
from loadtest.options import above_zero, share
from perf.bodies import Mix, make_bodies

GRACE_SECONDS = 15.0
"""The time for the last answers. The API answers 503 after 10 seconds."""
USAGE_SCOPES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
MAX_DIFFERENT_REQUESTS = 20_000
"""Different requests, which are made before the run and sent in turn."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    options_parser = argparse.ArgumentParser(
        prog="python -m loadtest.openloop", description=__doc__
    )
    options_parser.add_argument("--connect", default="127.0.0.1:3000", metavar="HOST:PORT")
    options_parser.add_argument(
        "--host", default="", help="Host header (default: that of --connect)"
    )
    options_parser.add_argument("--path", default="/api/usages")
    options_parser.add_argument("--authorization", default="", help="Authorization header")
    options_parser.add_argument("--rate", type=above_zero, default=16_667, help="requests a second")
    options_parser.add_argument("--seconds", type=above_zero, default=60)
    options_parser.add_argument("--connections", type=whole_number(1), default=256)
    options_parser.add_argument(
        "--devices", type=whole_number(1), default=Mix.devices, help="patients"
    )
    options_parser.add_argument(
        "--invalid", type=share, default=Mix.invalid, help="share of invalid requests"
    )
    options_parser.add_argument(
        "--even", action="store_true", help="even intervals instead of Poisson arrivals"
    )
    options_parser.add_argument(
        "--engine", choices=("c", "python"), help="default: c if cc is installed"
    )
    options_parser.add_argument("--json", type=Path, metavar="FILE", help="default: stdout")
    return options_parser


def render_requests(options: argparse.Namespace) -> tuple[list[bytes], list[bool]]:
    """Render the requests, and return for each whether it is valid."""
    mix = Mix(options.devices, options.invalid)
    host = options.host or options.connect
    head = f"POST {options.path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    if options.authorization:
        head += f"Authorization: {options.authorization}\r\n"
    # Not more than planned: otherwise the share of invalid requests would differ.
    entries = make_bodies(
        mix, min(MAX_DIFFERENT_REQUESTS, max(1, int(options.rate * options.seconds)))
    )
    messages = [
        f"{head}Content-Length: {len(entry)}\r\n\r\n".encode() + entry for entry, _ in entries
    ]
    return messages, [valid for _, valid in entries]


def run_generator(options: argparse.Namespace) -> dict[str, Any]:
    """Run the generator, and return its figures."""
    host, _, port = options.connect.rpartition(":")
    messages, valid = render_requests(options)
    due = plan_times(options.rate, options.seconds, even=options.even)
    program = None if options.engine == "python" else compile_program()
    if options.engine == "c" and program is None:
        raise FileNotFoundError("cc is missing: install a C compiler, or use --engine python")
    where = (host, int(port), messages, due, options.connections)
    run = Native(*where, program=program) if program else Generator(*where)
    run.run(GRACE_SECONDS)
    engine = "C" if program else f"Python {platform.python_version()}"
    cpu_seconds = sum(sum(resource.getrusage(who)[:2]) for who in USAGE_SCOPES)
    return {
        "engine": engine,
        "cpu": round(cpu_seconds, 2),
        "rate": options.rate,
        "seconds": options.seconds,
        **summarise(run, valid),
    }


def main() -> int:
    """Run the generator. Exit code 1: an unexpected answer, or none. 2: it could not run."""
    options = make_parser().parse_args()
    try:
        result = run_generator(options)
    except subprocess.CalledProcessError:
        return 2  # the program in C has printed why
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{options.connect}: {error}\n")
        return 2
    text = json.dumps(result) + "\n"
    if options.json:
        options.json.write_text(text)
    else:
        sys.stdout.write(text)
    return 1 if result["unexpected"] or result["unknown"] or result["not_sent"] else 0


if __name__ == "__main__":
    sys.exit(main())
