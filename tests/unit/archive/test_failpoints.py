import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from busyapi import failpoints
from busyapi.failpoints import make_failpoint, parse_spec

SCRIPT = """
from busyapi.failpoints import failpoint
for n in range(4):
    failpoint("here")
    print(n, flush=True)
"""


def run_script(value: str | None) -> tuple[int, list[str]]:
    """Run the script with a value of the variable, and return exit code and output."""
    environment = {name: text for name, text in os.environ.items() if name != failpoints.VARIABLE}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    if value is not None:
        environment[failpoints.VARIABLE] = value
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    return result.returncode, result.stdout.split()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, (0, ["0", "1", "2", "3"])),
        ("", (0, ["0", "1", "2", "3"])),
        ("there=kill", (0, ["0", "1", "2", "3"])),
        ("here=kill", (-signal.SIGKILL, [])),
        ("there=eio,here=kill@3", (-signal.SIGKILL, ["0", "1"])),
        ("here=eio@2", (1, ["0"])),
        ("here=oops", (1, [])),
    ],
)
def test_a_process_dies_where_the_variable_says(
    value: str | None, expected: tuple[int, list[str]]
) -> None:
    assert run_script(value) == expected


def test_without_the_variable_a_failpoint_does_nothing() -> None:
    assert failpoints.failpoint is failpoints._ignore


@pytest.mark.parametrize(("verb", "number"), [("eio", errno.EIO), ("enospc", errno.ENOSPC)])
def test_errors_are_raised_at_every_hit_or_at_one(verb: str, number: int) -> None:
    hit = make_failpoint(parse_spec(f"a={verb},b={verb}@2"))
    for _ in range(3):
        with pytest.raises(OSError, match="failpoint a") as caught:
            hit("a")
        assert caught.value.errno == number
    hit("b")
    with pytest.raises(OSError, match="failpoint b"):
        hit("b")
    hit("b")
    hit("c")


def test_sleep_sleeps() -> None:
    started = time.monotonic()
    make_failpoint(parse_spec("a=sleep:0.05"))("a")
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("spec", ["a", "a=", "a=b", "a=kill@", "a=kill@x", "=kill", "a=kill,,"])
def test_a_spec_that_cannot_be_read_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="BUSYAPI_FAILPOINTS"):
        parse_spec(spec)
