"""One look at a settled stack: what it weighs, what it costs, how fast it answers and restarts."""

import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from bench.markdown import MIB, table
from perf import procfs
from perf.stack import SETTLE_SECONDS, Durable
from testkit.child_process import Child
from testkit.http1 import fetch

LOOKUPS = 200


@dataclass(frozen=True)
class Look:
    """What was found when so many usages were archived."""

    usages: int
    resident_mib: dict[str, float]
    cpu_us_a_usage: dict[str, float]
    """Of each process, since the look before."""
    usages_a_second: float
    """While filling, over all processes."""
    archive_bytes_a_usage: float
    redis_mib: float
    lookup_ms: float
    """Median, of ids from the whole archive; a connection each."""
    count_ms: float
    restart_seconds: dict[str, float]
    """From its SIGTERM until every process is ready again."""


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
            name: round((seconds - cpu[name]) / more * 1e6, 2)
            for name, seconds in spent(contender).items()
        },
        usages_a_second=round(more / seconds),
        archive_bytes_a_usage=round(_size(contender.stack.archive) / usages, 2),
        redis_mib=round(memory["used_memory"] / MIB, 1),
        lookup_ms=_timed(lambda: _found(contender.port, random.randint(1, usages)), LOOKUPS),  # noqa: S311
        count_ms=_timed(lambda: _ok(contender.port, "/api/usages/count"), LOOKUPS // 10),
        restart_seconds={name: _restart(contender, process) for name, process in processes.items()},
    )


def archived_usages(contender: Durable) -> int:
    """Wait until all that is stored is archived, and return the number."""
    contender.stack.wait_until_archived(SETTLE_SECONDS)
    count: int = fetch(contender.port, "/api/usages/count").json()["count"]
    return count


def spent(contender: Durable) -> dict[str, float]:
    """Return the CPU seconds of each process."""
    return {name: procfs.cpu_seconds(process.pid) for name, process in contender.processes.items()}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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


def _restart(contender: Durable, process: Child) -> float:
    started = time.monotonic()
    process.restart()
    for entry in contender.stack.processes:
        entry.wait_until_ready()
    return round(time.monotonic() - started, 2)


def render(looks: Sequence[Look]) -> str:
    """Return the looks as a table, one column each."""
    head = ("when all was archived", *(f"{entry.usages:,} usages" for entry in looks))
    rows: list[tuple[str, ...]] = []
    names = looks[0].resident_mib

    def row(title: str, values: Iterable[float]) -> None:
        rows.append((title, *(f"{value:,}" for value in values)))

    for name in names:
        row(f"{name}: resident MiB", [entry.resident_mib[name] for entry in looks])
    for name in names:
        row(f"{name}: CPU µs a usage", [entry.cpu_us_a_usage[name] for entry in looks])
    for name in names:
        row(f"{name}: restart, s", [entry.restart_seconds[name] for entry in looks])
    row("usages a second while filling", [entry.usages_a_second for entry in looks])
    row("archive bytes a usage", [entry.archive_bytes_a_usage for entry in looks])
    row("Redis memory in use, MiB", [entry.redis_mib for entry in looks])
    row("lookup by id, ms", [entry.lookup_ms for entry in looks])
    row("count, ms", [entry.count_ms for entry in looks])
    return table(head, rows)
