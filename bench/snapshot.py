"""A snapshot of a settled stack: its memory, its costs, and how fast it answers and restarts."""

import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from bench.markdown import MIB, table
from perf import procfs
from perf.stack import SETTLE_SECONDS, BusyapiStack
from testkit.child_process import Child
from testkit.http1 import fetch

LOOKUPS = 200


@dataclass(frozen=True)
class Snapshot:
    """The measurements at a number of archived usages."""

    usages: int
    resident_mib: dict[str, float]
    cpu_us_a_usage: dict[str, float]
    """CPU of each process since the snapshot before."""
    usages_a_second: float
    """The rate while filling, over all processes."""
    archive_bytes_a_usage: float
    redis_mib: float
    lookup_ms: float
    """The median for ids from the whole archive, each over a new connection."""
    count_ms: float
    restart_seconds: dict[str, float]
    """The time from a process's SIGTERM until every process is ready again."""


def take_snapshot(
    contender: BusyapiStack, before: int, cpu: dict[str, float], seconds: float
) -> Snapshot:
    """Measure a settled stack."""
    processes = contender.processes
    usages = archived_usages(contender)
    more = usages - before
    memory = contender.server.client().info("memory")
    return Snapshot(
        usages=usages,
        resident_mib={
            n: round(procfs.resident_bytes(p.pid) / MIB, 1) for n, p in processes.items()
        },
        cpu_us_a_usage={
            name: round((seconds - cpu[name]) / more * 1e6, 2)
            for name, seconds in read_cpu_seconds(contender).items()
        },
        usages_a_second=round(more / seconds),
        archive_bytes_a_usage=round(_size(contender.stack.archive) / usages, 2),
        redis_mib=round(memory["used_memory"] / MIB, 1),
        lookup_ms=_measure_ms(lambda: _look_up(contender.port, random.randint(1, usages)), LOOKUPS),  # noqa: S311
        count_ms=_measure_ms(
            lambda: _require_ok(contender.port, "/api/usages/count"), LOOKUPS // 10
        ),
        restart_seconds={name: _restart(contender, process) for name, process in processes.items()},
    )


def archived_usages(contender: BusyapiStack) -> int:
    """Wait until all stored usages are archived, and return their number."""
    contender.stack.wait_until_archived(SETTLE_SECONDS)
    count: int = fetch(contender.port, "/api/usages/count").json()["count"]
    return count


def read_cpu_seconds(contender: BusyapiStack) -> dict[str, float]:
    """Return the CPU seconds of each process."""
    return {name: procfs.cpu_seconds(process.pid) for name, process in contender.processes.items()}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _measure_ms(call: Callable[[], None], times: int) -> float:
    """Return the median duration of calls in milliseconds."""
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        durations.append(time.perf_counter() - started)
    return round(statistics.median(durations) * 1e3, 2)


def _look_up(port: int, usage: int) -> None:
    _require_ok(port, f"/api/usages/{usage}")


def _require_ok(port: int, path: str) -> None:
    answer = fetch(port, path, seconds=30)
    if answer.status != HTTPStatus.OK:
        raise RuntimeError(f"{path} was answered {answer.status}")


def _restart(contender: BusyapiStack, process: Child) -> float:
    started = time.monotonic()
    process.restart()
    for entry in contender.stack.processes:
        entry.wait_until_ready()
    return round(time.monotonic() - started, 2)


def render(snapshots: Sequence[Snapshot]) -> str:
    """Return a table with a column for each snapshot."""
    head = ("when all was archived", *(f"{entry.usages:,} usages" for entry in snapshots))
    rows: list[tuple[str, ...]] = []
    names = snapshots[0].resident_mib

    def row(title: str, values: Iterable[float]) -> None:
        rows.append((title, *(f"{value:,}" for value in values)))

    for name in names:
        row(f"{name}: resident MiB", [entry.resident_mib[name] for entry in snapshots])
    for name in names:
        row(f"{name}: CPU µs a usage", [entry.cpu_us_a_usage[name] for entry in snapshots])
    for name in names:
        row(f"{name}: restart, s", [entry.restart_seconds[name] for entry in snapshots])
    row("usages a second while filling", [entry.usages_a_second for entry in snapshots])
    row("archive bytes a usage", [entry.archive_bytes_a_usage for entry in snapshots])
    row("Redis memory in use, MiB", [entry.redis_mib for entry in snapshots])
    row("lookup by id, ms", [entry.lookup_ms for entry in snapshots])
    row("count, ms", [entry.count_ms for entry in snapshots])
    return table(head, rows)
