"""The open-loop generator as a program of its own, so that nothing else delays what it sends."""

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
from loadtest.generator import Generator, plan
from loadtest.native import Native, compiled
from loadtest.options import above_zero, share
from perf.bodies import Mix, bodies

GRACE_SECONDS = 15.0
"""For the last answers; the API answers 503 after 10."""
WHOSE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
DIFFERENT = 20_000
"""Requests that are made before the run, and sent over and over."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    options_parser = argparse.ArgumentParser(
        prog="python -m loadtest.openloop", description=__doc__
    )
    options_parser.add_argument("--connect", default="127.0.0.1:3000", metavar="HOST:PORT")
    options_parser.add_argument(
        "--host", default="", help="Host header (default: that of --connect)"
    )
    options_parser.add_argument("--path", default="/api/usages")
    options_parser.add_argument("--rate", type=above_zero, default=16_667, help="requests a second")
    options_parser.add_argument("--seconds", type=above_zero, default=60)
    options_parser.add_argument("--connections", type=whole_number(1), default=256)
    options_parser.add_argument(
        "--devices", type=whole_number(1), default=Mix.devices, help="patients"
    )
    options_parser.add_argument(
        "--invalid", type=share, default=Mix.invalid, help="share to be refused"
    )
    options_parser.add_argument(
        "--even", action="store_true", help="not Poisson but at even distances"
    )
    options_parser.add_argument(
        "--engine", choices=("c", "python"), help="default: c where there is a cc to compile it"
    )
    options_parser.add_argument("--json", type=Path, metavar="FILE", help="default: stdout")
    return options_parser


def requests(options: argparse.Namespace) -> tuple[list[bytes], list[bool]]:
    """Render them, with whether each is valid."""
    mix = Mix(options.devices, options.invalid)
    host = options.host or options.connect
    head = f"POST {options.path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    # Never more than are planned, or the share of the invalid would be another.
    made = bodies(mix, min(DIFFERENT, max(1, int(options.rate * options.seconds))))
    messages = [f"{head}Content-Length: {len(entry)}\r\n\r\n".encode() + entry for entry, _ in made]
    return messages, [valid for _, valid in made]


def offer(options: argparse.Namespace) -> dict[str, Any]:
    """Run the generator, and return its figures."""
    host, _, port = options.connect.rpartition(":")
    messages, valid = requests(options)
    due = plan(options.rate, options.seconds, even=options.even)
    program = None if options.engine == "python" else compiled()
    if options.engine == "c" and program is None:
        raise FileNotFoundError("no cc to compile openloop.c with")
    where = (host, int(port), messages, due, options.connections)
    run = Native(*where, program=program) if program else Generator(*where)
    run.run(GRACE_SECONDS)
    engine = "C" if program else f"Python {platform.python_version()}"
    spent = sum(sum(resource.getrusage(who)[:2]) for who in WHOSE)
    return {
        "engine": engine,
        "cpu": round(spent, 2),
        "rate": options.rate,
        "seconds": options.seconds,
        **summarise(run, valid),
    }


def main() -> int:
    """Offer the load; 1: a request was not answered as its body deserves, 2: it could not."""
    options = parser().parse_args()
    try:
        result = offer(options)
    except subprocess.CalledProcessError:
        return 2  # the program in C has said why
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
