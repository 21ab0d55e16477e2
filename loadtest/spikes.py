"""Spikes, and what caused them.

A spike is a second of the plan with a p99 above twice the median of all seconds. What happened in a
second is its cause:

    segment roll, AOF rewrite    it was under way
    AOF fsync, AOF write,        Valkey's longest one took at least as long as the median p99
    slow command
    scheduler                    API, Valkey or generator waited for a core for 0.1 s more than in
                                 the median second
    other programs, steal        they used 0.1 s more CPU time than in the median second
    earlier spike                none of these, but the second before was a spike: a queue remains
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from loadtest.events import COMMAND, FSYNC, REWRITE, ROLL, WRITE
from loadtest.result import Json

FACTOR = 2
"""A spike's p99 is above this many median p99s."""
EXTRA_SECONDS = 0.1
SCHEDULER, EARLIER, UNKNOWN = "scheduler", "earlier spike", "unknown"
STEAL, OTHERS = "steal", "other programs"
ORDER = (ROLL, REWRITE, FSYNC, WRITE, COMMAND, STEAL, OTHERS, SCHEDULER, EARLIER, UNKNOWN)
"""The causes, those first that are events."""
NOTHING = "nothing"
OFF_THE_PATH = {"flusher"}
"""No answer waits for these processes."""


@dataclass(frozen=True)
class Spike:
    """A second with a high p99."""

    at: int
    p99: float
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """All seconds in which the same happened, be they spikes or not."""

    causes: str
    seconds: int
    spikes: int
    p99_median: float
    p99_max: float


def has_causes(result: Json) -> bool:
    """Return whether the run recorded what the causes are read from: that of a temporary stack."""
    return any(sample["outside"] for sample in result["samples"])


def find_limit(result: Json) -> float:
    """Return the p99 above which a second is a spike."""
    return FACTOR * float(median(row["p99"] for row in _complete_seconds(result)))


def find_spikes(result: Json) -> list[Spike]:
    """Return the spikes with their causes."""
    limit = find_limit(result)
    causes = _list_causes(result)
    spikes: list[Spike] = []
    for row in _complete_seconds(result):
        at = row["at"]
        if row["p99"] > limit:
            follows = bool(spikes) and spikes[-1].at == at - 1
            names = causes[at] or [EARLIER if follows else UNKNOWN]
            spikes.append(Spike(at, row["p99"], tuple(names)))
    return spikes


def summarise_causes(result: Json) -> list[Group]:
    """Return the p99s of the seconds in which the same happened, the most frequent group first."""
    limit = find_limit(result)
    causes = _list_causes(result)
    spikes = {spike.at: spike.causes for spike in find_spikes(result)}
    groups: dict[str, list[float]] = {}
    for row in _complete_seconds(result):
        names = spikes.get(row["at"]) or causes[row["at"]] or [NOTHING]
        groups.setdefault(", ".join(names), []).append(row["p99"])
    return [
        Group(names, len(p99), sum(ms > limit for ms in p99), round(median(p99), 3), max(p99))
        for names, p99 in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]


def _complete_seconds(result: Json) -> list[Json]:
    """Return the rows of the planned seconds; the last may be cut off, and the first is cold."""
    rows: list[Json] = [row for row in result["openloop"]["series"] if row["created"]]
    return rows[1:] if len(rows) > 1 else rows


def _list_causes(result: Json) -> dict[int, list[str]]:
    """Return what happened in each second."""
    rows = _complete_seconds(result)
    seconds = [row["at"] for row in rows]
    shortest_ms = median(row["p99"] for row in rows)
    causes: dict[int, list[str]] = {second: [] for second in seconds}
    for event in result["events"]:
        if event["longest_ms"] is None or event["longest_ms"] >= shortest_ms:
            # What lasts exactly until the next second is not in it.
            last = max(event["at"], event["at"] + event["seconds"] - 1e-6)
            for second in range(int(event["at"] // 1), int(last // 1) + 1):
                _add(causes, second, event["name"])
    for name, total in _list_counters(result):
        for second in _find_high_seconds(seconds, total):
            _add(causes, second, name)
    return {second: sorted(names, key=ORDER.index) for second, names in causes.items()}


def _add(causes: dict[int, list[str]], second: int, name: str) -> None:
    if second in causes and name not in causes[second]:
        causes[second].append(name)


def _list_counters(result: Json) -> Iterator[tuple[str, Callable[[float], float]]]:
    """Yield for each counter of the samples its cause, and a function of its total at a time."""
    samples = [sample for sample in result["samples"] if sample["outside"]]
    if not samples:
        return
    times = [sample["at"] for sample in samples]
    for process in samples[0]["waiting"]:
        if process not in OFF_THE_PATH:
            yield SCHEDULER, _interpolate(times, [s["waiting"].get(process, 0.0) for s in samples])
    for name in samples[0]["outside"]:
        yield name, _interpolate(times, [s["outside"][name] for s in samples])


def _interpolate(times: Sequence[float], totals: Sequence[float]) -> Callable[[float], float]:
    def total(at: float) -> float:
        after = bisect_right(times, at)
        if after in {0, len(times)}:
            return totals[min(after, len(times) - 1)]
        begin, end = times[after - 1], times[after]
        share = (at - begin) / (end - begin)
        return totals[after - 1] + share * (totals[after] - totals[after - 1])

    return total


def _find_high_seconds(seconds: Sequence[int], total: Callable[[float], float]) -> Iterator[int]:
    """Yield the seconds in which a counter grew by more than in the median second."""
    growth = {second: total(second + 1) - total(second) for second in seconds}
    usual = median(growth.values())
    for second, seconds_lost in growth.items():
        if seconds_lost > usual + EXTRA_SECONDS:
            yield second
