"""Where the CPU time of one single post goes: kernel, event loop, interpreter and Python's steps.

One API process, pinned as in the scenario `pinned`, is sampled twice while wrk drives it: by Linux'
perf, which sees the kernel and the libraries, and by py-spy, which sees lines of Python. perf's
shares are those of the process; py-spy's shares divide the interpreter's part.
"""

import argparse
import linecache
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from bench.cli import make_temporary_folder
from bench.measure import APPLICATION_CORE, OTHER_CORE
from bench.progress import print_progress
from bench.runs import WARM_UP_SECONDS, Driver
from busyapi.argument_types import whole_number
from perf import procfs, wrk
from perf.load import SINGLE
from perf.machine import describe_machine, versions
from perf.stack import BusyapiStack
from testkit.child_process import Child

PERF_HERTZ, PYTHON_HERTZ = 1999, 500
TOOL_GRACE_SECONDS = 60

SEND, RECEIVE, POLL = "kernel: send", "kernel: receive", "kernel: wait for events"
OTHER_KERNEL, INTERPRETER, OTHER = "kernel: other", "interpreter", "other libraries"
_SYSTEM_CALLS = (
    (SEND, re.compile(r"(?:__x64_sys|ksys)_(?:write|writev|sendto|sendmsg)$")),
    (RECEIVE, re.compile(r"(?:__x64_sys|ksys)_(?:read|readv|recvfrom|recvmsg)$")),
    (POLL, re.compile(r"__x64_sys_epoll")),
)
_LIBRARIES = (
    ("uvloop", "uvloop"),
    ("msgspec", "msgspec"),
    ("hiredis", "hiredis"),
    ("/python3", INTERPRETER),
    ("libpython", INTERPRETER),
)
_STEPS = (
    ("busyapi/decode/", "decode the usage"),
    ("busyapi/api/request_head.py", "read the head"),
    ("busyapi/commit/", "batch and complete"),
    ("busyapi/stream/", "commands and replies of Redis"),
    ("busyapi/telemetry/", "count"),
    ("busyapi/", "submit and answer"),
)
OTHER_PYTHON = "other Python"
FRAME = re.compile(r"\s+[0-9a-f]+ (?P<symbol>.*?) \((?P<object>.*)\)$")
PYTHON_FRAME = re.compile(r"(?P<function>.*) \((?P<file>.*):(?P<line>\d+)\)$")


def classify_samples(script: Iterable[str]) -> Counter[str]:
    """Count the samples of `perf script -F ip,sym,dso` by what ran."""
    counts: Counter[str] = Counter()
    for stack in _split_stacks(script):
        leaf = stack[0]["object"]
        if "kernel" in leaf or leaf.startswith("[guest"):
            calls = (
                name
                for name, symbol in _SYSTEM_CALLS
                if any(symbol.match(frame["symbol"]) for frame in stack)
            )
            counts[next(calls, OTHER_KERNEL)] += 1
        else:
            counts[next((name for part, name in _LIBRARIES if part in leaf), OTHER)] += 1
    return counts


def _split_stacks(script: Iterable[str]) -> Iterator[list[re.Match[str]]]:
    stack: list[re.Match[str]] = []
    for line in script:
        if match := FRAME.match(line.rstrip("\n")):
            stack.append(match)
        elif stack:
            yield stack
            stack = []
    if stack:
        yield stack


def classify_python(raw: Iterable[str]) -> Counter[str]:
    """Count py-spy's raw samples by step, without those in system calls and the event loop."""
    counts: Counter[str] = Counter()
    for line in raw:
        stack, _, count = line.rstrip("\n").rpartition(" ")
        frames = [match for frame in stack.split(";") if (match := PYTHON_FRAME.match(frame))]
        if not frames or _is_outside_python(frames[-1]):
            continue
        files = [frame["file"] for frame in reversed(frames)]
        # The innermost frame of busyapi: what a library does is part of the step that calls it.
        step = next((step for file in files for part, step in _STEPS if part in file), OTHER_PYTHON)
        counts[step] += int(count)
    return counts


def _is_outside_python(leaf: re.Match[str]) -> bool:
    if leaf["function"] == "_run_server_forever":
        return True  # uvloop's loop
    return ".write(" in linecache.getline(leaf["file"], int(leaf["line"]))


def divide(counts: Counter[str], total: float) -> dict[str, float]:
    """Return each part of a total, the largest first."""
    samples = max(1, counts.total())
    return {name: total * count / samples for name, count in counts.most_common()}


def plot(parts: dict[str, float], steps: dict[str, float], path: Path) -> None:
    """Write a PNG: one bar of all parts, one of the steps within the interpreter's."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    rows = figure.subplots(2, sharex=True)
    titles = ("one post", "of that, the interpreter's steps")
    for axes, title, bars in zip(rows, titles, (parts, steps), strict=True):
        left = 0.0
        for name, microseconds in bars.items():
            axes.barh(
                0, microseconds, left=left, edgecolor="white", label=f"{microseconds:.2f}  {name}"
            )
            left += microseconds
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    rows[-1].set_xlabel("CPU µs of the API process for one post")
    figure.savefig(path, dpi=100)


def _sample(folder: Path, seconds: int, connections: int) -> tuple[float, str, str, str]:
    """Return the CPU µs a post, both tools' outputs, and the versions."""
    with BusyapiStack(folder / "stack", apis=1) as contender:
        contender.pin(APPLICATION_CORE, OTHER_CORE)
        driver = Driver(contender, SINGLE, folder, connections, OTHER_CORE)
        contender.probe(driver.load)
        driver.drive(WARM_UP_SECONDS)
        pid = contender.stack.apis[0].pid
        before = procfs.cpu_seconds(pid)
        posts = driver.drive(seconds).accepted
        microseconds = (procfs.cpu_seconds(pid) - before) / max(1, posts) * 1e6
        data, raw = folder / "perf.data", folder / "python.raw"
        record = ["perf", "record", "-e", "cpu-clock", "-g", "-F", str(PERF_HERTZ), "-p", str(pid)]
        record += ["-o", str(data), "--", "sleep", str(seconds)]
        spy = [str(Path(sys.executable).with_name("py-spy")), "record", "--nonblocking"]
        spy += ["-r", str(PYTHON_HERTZ), "-d", str(seconds), "-f", "raw", "-o", str(raw)]
        for name, argv in (("perf", record), ("py-spy", [*spy, "-p", str(pid)])):
            print_progress(f"sampling with {name} for {seconds} s")
            with Child(argv, log=folder / f"{name}.log") as tool:
                driver.drive(seconds + 1)
                tool.wait(TOOL_GRACE_SECONDS)
        names = ", ".join(f"{k} {v}" for k, v in versions(contender.server).items())
    script = subprocess.run(
        ["perf", "script", "-i", str(data), "-F", "ip,sym,dso"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return microseconds, script.stdout, raw.read_text(), names


def render(microseconds: float, parts: dict[str, float], steps: dict[str, float]) -> str:
    """Return the tables."""
    lines = [f"CPU µs of one post: {microseconds:.1f}", "", "| | µs | share |", "|---|---:|---:|"]
    for table in (parts, steps):
        lines += [
            f"| {name} | {value:.2f} | {value / microseconds:.1%} |"
            for name, value in table.items()
        ]
        if table is parts:
            lines += ["", "| of the interpreter's | µs | share |", "|---|---:|---:|"]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("--seconds", type=whole_number(1), default=10)
    parser.add_argument("--connections", type=whole_number(1), default=256)
    parser.add_argument("--plot", type=Path, help="write a PNG to this path")
    options = parser.parse_args(arguments)
    if not shutil.which("perf"):
        print_progress("perf is not installed: apt-get install linux-perf")
        return 2
    wrk.find()
    with make_temporary_folder(Path("/var/tmp")) as folder:  # noqa: S108 - a new folder is made in it
        machine = describe_machine(folder)
        microseconds, script, raw, names = _sample(folder, options.seconds, options.connections)
    parts = divide(classify_samples(script.splitlines()), microseconds)
    steps = divide(classify_python(raw.splitlines()), parts.get(INTERPRETER, 0.0))
    if options.plot:
        plot(parts, steps, options.plot)
    sys.stdout.write(f"{machine}; {names}\n\n{render(microseconds, parts, steps)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
