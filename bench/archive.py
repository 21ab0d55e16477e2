"""Measure the archive's commands and `busyapi lake` on realistic usages, beside DuckDB.

commands   each is a process of its own. DuckDB does the same work on the same files; beside
           `verify`, `zstd -t` and `sha256sum` read them
lists      GET /api/usages of a `busyapi dev` on the archive
follow     usages are appended while `busyapi lake` runs

The report is Markdown. 50 million usages need 4 GB of disk and take 20 minutes.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import NamedTuple
from urllib.request import urlopen

from bench.archive_fill import (
    APPENDED_RATE,
    APPENDED_SEGMENT_AGE,
    append_usages,
    fill_archive,
)
from bench.archive_lists import HEAD, measure_lists
from bench.archive_reference import DuckDb
from bench.cli import make_temporary_folder
from bench.markdown import table
from bench.progress import print_progress
from busyapi.argument_types import whole_number
from busyapi.lake.table import LakeConfig, LakeTable, list_files
from perf.machine import describe_machine
from testkit.ports import reserve_port

MAX_SECONDS = 3600
PARTITIONS = 2
PARTS = ("commands", "lists", "follow")
SEGMENTS = "p*/*/usages-*.zst"
PATIENT = "031415"
SINCE, UNTIL = "2026-11-04T12:00:00.000Z", "2026-11-04T13:00:00.000Z"
LISTS = 200
FOLLOW_SECONDS = 180
INTERVAL = 15.0
"""Seconds between two turns of the lake that follows. The default is 60."""
DAYS_SQL = (
    "select received_at::date, medication, count(*) from usages group by all order by all limit 100"
)


class Cost(NamedTuple):
    """What a process took."""

    seconds: float
    cpu: float
    """Seconds, user and system, of the process and those that it waited for."""
    peak_mib: float

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        """Return the cost of one after the other."""
        return Cost(
            self.seconds + other.seconds,
            self.cpu + other.cpu,
            max(self.peak_mib, other.peak_mib),
        )


class Row(NamedTuple):
    """One line of the report."""

    what: str
    by: str
    cost: Cost


def measure(command: list[str], environment: dict[str, str] | None = None) -> Cost:
    """Run a command to its end.

    Raises:
        CalledProcessError: it failed.
    """
    # A process begins with the peak of the one that starts it, so a small one does.
    starter = [sys.executable, "-S", "-c", _STARTER, *command]
    started = time.monotonic()
    result = subprocess.run(
        starter, env=os.environ | (environment or {}), check=False, stdout=subprocess.PIPE
    )
    if result.returncode:
        raise subprocess.CalledProcessError(result.returncode, command)
    cpu, peak_kib = result.stdout.split()
    return Cost(time.monotonic() - started, float(cpu), int(peak_kib) / 1024)


_STARTER = """
import os, sys
null = os.open(os.devnull, os.O_WRONLY)
actions = [(os.POSIX_SPAWN_DUP2, null, 1)]
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
_, status, used = os.wait4(pid, 0)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Bench:
    """The measurements of one archive."""

    def __init__(self, folder: Path, usages: int) -> None:
        self.folder, self.usages = folder, usages
        self.archive = folder / "state" / "archive"
        self.rows: list[Row] = []
        self._environment = {
            "BUSYAPI_LAKE_WAREHOUSE": str(folder / "lake"),
            "BUSYAPI_LAKE_INTERVAL": str(INTERVAL),
        }

    def run_commands(self) -> Iterator[str]:
        """Measure the commands on the archive as it is."""
        duck = DuckDb(self.archive)
        exported = self.folder / "busyapi.parquet", self.folder / "duckdb.parquet"
        self._add("export, all columns", "DuckDB", duck.export(exported[1]))
        self._add_own("export, all columns", "export", str(exported[0]))
        self._add("one patient", "DuckDB", duck.count_patient(PATIENT))
        self._add_own("one patient", "cat", "--patient", PATIENT)
        self._add("received in one hour", "DuckDB", duck.count_range(SINCE, UNTIL))
        self._add_own("received in one hour", "cat", "--from", SINCE, "--to", UNTIL)
        self._add("medications by day", "DuckDB", duck.count_days())
        self._add_own("medications by day", "sql", DAYS_SQL)
        files = [str(path) for path in self.archive.glob(SEGMENTS)]
        tested = measure(["zstd", "-qt", *files]) + measure(["sha256sum", *files])
        self.rows.append(Row("verify", "zstd -t, then sha256sum", tested))
        self._add_own("verify", "verify")
        lake = [sys.executable, "-m", "busyapi", "lake", "--dir", str(self.archive), "--once"]
        self.rows.append(Row("lake, all of it", "busyapi", measure(lake, self._environment)))
        lake_table = LakeTable(LakeConfig(str(self.folder / "lake"), "", "busyapi.usages")).load()
        paths = [file.file_path.removeprefix("file://") for file in list_files(lake_table)]
        self._add("one patient", "DuckDB, from the lake", duck.count_lake_patient(paths, PATIENT))
        self._add("medications by day", "DuckDB, from the lake", duck.count_lake_days(paths))
        yield from self._render_commands()

    def run_lists(self) -> Iterator[str]:
        """Measure lists."""
        pages = measure_lists(self.folder, PARTITIONS, LISTS)
        yield table(HEAD, (page.cells() for page in pages))

    def follow(self) -> Iterator[str]:
        """Append usages while the lake follows."""
        port = reserve_port()
        command = [sys.executable, "-m", "busyapi", "lake", "--dir", str(self.archive)]
        environment = self._environment | {"BUSYAPI_LAKE_METRICS_PORT": str(port)}
        lags: list[float] = []
        print_progress(f"appending {APPENDED_RATE} usages a second for {FOLLOW_SECONDS} s")
        with (
            subprocess.Popen(
                command, env=os.environ | environment, stdout=subprocess.DEVNULL
            ) as lake,
            append_usages(self.archive, PARTITIONS, FOLLOW_SECONDS),
        ):
            end = time.monotonic() + FOLLOW_SECONDS
            before = _read_metrics(port)["busyapi_lake_usages_total"]
            started, cpu = time.monotonic(), _read_cpu(lake.pid)
            while time.monotonic() < end:
                time.sleep(1)
                lags.append(_read_metrics(port)["busyapi_lake_lag_seconds"])
            taken = _read_metrics(port)["busyapi_lake_usages_total"] - before
            cpu = _read_cpu(lake.pid) - cpu
            took = time.monotonic() - started
            lake.terminate()
            _, _, used = os.wait4(lake.pid, 0)
            lake.returncode = 0
        yield (
            f"`busyapi lake`, which looks every {INTERVAL:.0f} s, beside {APPENDED_RATE:,} usages a"
            f" second in segments of {APPENDED_SEGMENT_AGE:.0f} s, for {took:.0f} s:"
            f" {taken:,.0f} usages taken,"
            f" {cpu / max(taken, 1) * 1e6:.2f} µs of CPU a usage; since the oldest finished segment"
            f" that the table lacked, median {statistics.median(lags):.0f} s, longest"
            f" {max(lags):.0f} s; {used.ru_maxrss / 1024:.0f} MiB."
        )

    def _add(self, what: str, by: str, command: list[str]) -> None:
        print_progress(f"{what}: {by}")
        self.rows.append(Row(what, by, measure(command)))

    def _add_own(self, what: str, command: str, *arguments: str) -> None:
        own = [sys.executable, "-m", "busyapi", "archive", command, "--dir", str(self.archive)]
        self._add(what, "busyapi", [*own, *arguments])

    def _render_commands(self) -> Iterator[str]:
        size = sum(path.stat().st_size for path in self.archive.glob(SEGMENTS))
        head = ("", "by", "seconds", "CPU seconds", "CPU µs a usage", "CPU ratio", "peak MiB")
        rows = sorted(self.rows, key=lambda row: [one.what for one in self.rows].index(row.what))
        yield table(head, (self._cells(row) for row in rows))
        for path in sorted(self.folder.glob("*.parquet")):
            yield f"{path.name}: {path.stat().st_size / size:.2f} of the archive's size."

    def _cells(self, row: Row) -> tuple[str, ...]:
        reference = next(one for one in self.rows if one.what == row.what)
        cost = row.cost
        ratio = "" if reference is row else f"{cost.cpu / reference.cost.cpu:.3g}"
        return (
            row.what,
            row.by,
            f"{cost.seconds:.1f}",
            f"{cost.cpu:.1f}",
            f"{cost.cpu / self.usages * 1e6:.2f}",
            ratio,
            f"{cost.peak_mib:.0f}",
        )


def _read_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read_metrics(port: int) -> dict[str, float]:
    """Return the largest value of each metric."""
    values: dict[str, float] = {}
    for _ in range(300):
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            time.sleep(0.1)
            continue
        for name, value in re.findall(r"^(\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE):
            values[name] = max(values.get(name, float(value)), float(value))
        if "busyapi_lake_lag_seconds" in values:
            return values
        time.sleep(0.1)
    raise TimeoutError("the lake has no metrics")


def main() -> int:
    """Make the archive, measure, and print the report."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.archive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--usages", type=whole_number(1000), default=4_000_000, metavar="N")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), metavar="DIR")  # noqa: S108
    options = parser.parse_args()
    machine = describe_machine(options.folder)
    names = ("busyapi", "duckdb", "pyarrow", "pyiceberg")
    with make_temporary_folder(options.folder) as folder:
        bench = Bench(folder, options.usages)
        print_progress(f"filling {folder}")
        fill_archive(bench.archive, options.usages, partitions=PARTITIONS)
        size = sum(path.stat().st_size for path in bench.archive.glob(SEGMENTS))
        parts = [f"{options.usages:,} usages, {size / options.usages:.1f} bytes each."]
        steps = {"commands": bench.run_commands, "lists": bench.run_lists, "follow": bench.follow}
        for name in options.parts:
            parts += steps[name]()
    parts.append(
        f"{machine.cores} cores of {machine.cpu}, {machine.memory_gib} GiB, {machine.kernel},"
        f" {machine.file_system}, load {machine.load_before} before the start; Python"
        f" {python_version()}, {', '.join(f'{name} {version(name)}' for name in names)}"
    )
    sys.stdout.write("\n\n".join(parts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
