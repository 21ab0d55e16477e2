"""Whether anything but the archive grows: one stack, millions of usages, looked at on the way.

    fill to 1 M ── look ── fill to 10 M ── look ── fill to 50 M ── look, verify

A tenth is posted one by one through wrk, the rest in batches of usages that are not alike, so that
zstd meets what it would meet. A look is taken when all is archived: memory, CPU since the last
look, bytes, how long a lookup, a count and a restart of each process take. Each look ends with the
restarts, so the memory is that of processes which took 1, 9 and 40 million usages.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

from bench import archived, procfs, wrk
from bench.durable import SETTLE_SECONDS, Durable
from bench.load import SINGLE, Load
from bench.machine import machine, versions
from bench.markdown import MIB, table
from bench.progress import tell
from bench.realistic import batch
from tests.support.children import Child
from tests.support.http1 import fetch

MILLION = 1_000_000
CONNECTIONS = 64
BATCH = 1000
BODIES = 200
"""Batches made before the start, 20 MB: far more than zstd looks back."""
POSTERS = 4
SINGLES = 0.1
"""The part that is posted one by one."""
LOOKUPS = 200
SLICE_SECONDS = 5


@dataclass(frozen=True)
class Look:
    """What was found when so many usages were archived."""

    usages: int
    resident_mib: dict[str, float]
    cpu_us_a_usage: dict[str, float]
    """Of each process, since the look before."""
    usages_a_second: float
    """Likewise, while filling."""
    archive_bytes_a_usage: float
    redis_mib: float
    lookup_ms: float
    """Median, of ids from the whole archive; a connection each."""
    count_ms: float
    restart_seconds: dict[str, float]
    """From SIGTERM to ready again."""


class Filler:
    """Posts until so many usages are stored."""

    def __init__(self, contender: Durable, folder: Path) -> None:
        self._contender = contender
        self._folder = folder
        self._script = SINGLE.write_script(folder)
        self._bodies: Sequence[Load] = [batch(seed, BATCH) for seed in range(BODIES)]
        self._singles = 0

    def fill(self, target: int) -> None:
        """Go on until `target` usages were stored since the start, or a few more."""
        while (stored := archived_usages(self._contender)) < target:
            if self._singles < SINGLES * stored:
                self._singles += self._one_by_one()
            else:
                self._batches(min(target - stored, MILLION))

    def _one_by_one(self) -> int:
        line = wrk.command(SINGLE, self._script, self._contender.port, SLICE_SECONDS, CONNECTIONS)
        result = wrk.run(line, self._folder / "wrk.log", SLICE_SECONDS)
        if result.not_2xx or result.socket_errors:
            raise RuntimeError(f"wrk saw {result.not_2xx + result.socket_errors} errors")
        return result.accepted

    def _batches(self, usages: int) -> None:
        rounds = max(1, usages // (BATCH * POSTERS))
        with ThreadPoolExecutor(POSTERS) as pool:
            list(pool.map(self._post, range(POSTERS), [rounds] * POSTERS))

    def _post(self, poster: int, rounds: int) -> None:
        connection = HTTPConnection("127.0.0.1", self._contender.port, timeout=60)
        headers = {"Content-Type": "application/json"}
        for turn in range(rounds):
            load = self._bodies[(turn * POSTERS + poster) % BODIES]
            connection.request("POST", load.path, load.body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != load.status:
                raise RuntimeError(f"a batch was answered {answer.status}")
        connection.close()


def run(folder: Path, targets: Sequence[int]) -> tuple[list[Look], str, dict[str, str]]:
    """Fill, look, and verify at the end; give the looks, what verify said, and versions."""
    looks: list[Look] = []
    with Durable(folder / "stack", apis=2) as contender:
        filler = Filler(contender, folder)
        stored = 0
        for target in targets:
            tell(f"flat: filling to {target:,}")
            cpu, started = _cpu(contender), time.monotonic()
            filler.fill(target)
            looks.append(look(contender, stored, cpu, time.monotonic() - started))
            stored = looks[-1].usages
            tell(f"flat: {looks[-1]}")
        what = versions(contender.server)
        for each in [*contender.stack.apis, *contender.stack.flushers]:
            each.stop()
        found = archived.count(contender.stack.archive)
        if found.lines != stored or found.fault:
            raise RuntimeError(f"{found.lines:,} lines for {stored:,} usages; {found.fault}")
        return looks, verify(contender.stack.archive), what


def look(contender: Durable, before: int, cpu: dict[str, float], seconds: float) -> Look:
    """Look at a settled stack."""
    processes = contender.processes
    usages = archived_usages(contender)
    more = usages - before
    memory = contender.server.client().info("memory")
    return Look(
        usages=usages,
        resident_mib={
            n: round(procfs.resident_bytes(p.pid) / MIB, 1) for n, p in processes.items()
        },
        cpu_us_a_usage={
            name: round((spent - cpu[name]) / more * 1e6, 2)
            for name, spent in _cpu(contender).items()
        },
        usages_a_second=round(more / seconds),
        archive_bytes_a_usage=round(_size(contender.stack.archive) / usages, 2),
        redis_mib=round(memory["used_memory"] / MIB, 1),
        lookup_ms=_timed(lambda: _found(contender.port, random.randint(1, usages)), LOOKUPS),  # noqa: S311
        count_ms=_timed(lambda: _ok(contender.port, "/api/usages/count"), LOOKUPS // 10),
        restart_seconds={name: _restart(each) for name, each in processes.items()},
    )


def archived_usages(contender: Durable) -> int:
    """Wait until all that is stored is archived; say how many that is."""
    contender.stack.wait_until_archived(SETTLE_SECONDS)
    count: int = fetch(contender.port, "/api/usages/count").json()["count"]
    return count


def _cpu(contender: Durable) -> dict[str, float]:
    return {name: procfs.cpu_seconds(each.pid) for name, each in contender.processes.items()}


def _size(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def _timed(ask: Callable[[], None], times: int) -> float:
    """Return the median in milliseconds."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        ask()
        took.append(time.perf_counter() - started)
    return round(statistics.median(took) * 1e3, 2)


def _found(port: int, usage: int) -> None:
    _ok(port, f"/api/usages/{usage}")


def _ok(port: int, path: str) -> None:
    answer = fetch(port, path, seconds=30)
    if answer.status != HTTPStatus.OK:
        raise RuntimeError(f"{path} was answered {answer.status}")


def _restart(process: Child) -> float:
    started = time.monotonic()
    process.restart()
    return round(time.monotonic() - started, 2)


def verify(archive: Path) -> str:
    """Run `busyapi archive verify`; give its last line with the time it took."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "busyapi", "archive", "verify", "--dir", str(archive)],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"verify ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return f"{done.stdout.strip().splitlines()[-1]} ({time.monotonic() - started:.0f} s)"


def main(arguments: list[str] | None = None) -> int:
    """Run it; give the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.flat",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--usages",
        type=int,
        nargs="+",
        default=[MILLION, 10 * MILLION, 50 * MILLION],
        metavar="N",
        help="when to look (default 1, 10 and 50 million); they take minutes for each 10 million",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("/var/tmp"),  # noqa: S108 - a folder of our own is made in it
        metavar="DIR",
        help="on disk, with 20 bytes a usage free and 200 MB (default /var/tmp)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the looks as JSON")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="busyapi-flat-", dir=options.folder))
    try:
        here = machine(folder)
        looks, verified, what = run(folder, options.usages)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in looks], indent=2) + "\n")
    sys.stdout.write(render(looks) + f"\n\nverify: {verified}\n\n{here}\n{what}\n")
    return 0


def render(looks: Sequence[Look]) -> str:
    """Return the looks as a table, one column each."""
    head = ("when all was archived", *(f"{each.usages:,} usages" for each in looks))
    rows: list[tuple[str, ...]] = []
    names = looks[0].resident_mib

    def row(title: str, values: Iterable[float]) -> None:
        rows.append((title, *(f"{each:,}" for each in values)))

    for name in names:
        row(f"{name}: resident MiB", [each.resident_mib[name] for each in looks])
    for name in names:
        row(f"{name}: CPU µs a usage", [each.cpu_us_a_usage[name] for each in looks])
    for name in names:
        row(f"{name}: restart, s", [each.restart_seconds[name] for each in looks])
    row("usages a second while filling", [each.usages_a_second for each in looks])
    row("archive bytes a usage", [each.archive_bytes_a_usage for each in looks])
    row("Redis memory in use, MiB", [each.redis_mib for each in looks])
    row("lookup by id, ms", [each.lookup_ms for each in looks])
    row("count, ms", [each.count_ms for each in looks])
    return table(head, rows)


if __name__ == "__main__":
    sys.exit(main())
