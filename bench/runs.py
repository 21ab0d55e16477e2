"""One run of a contender, and the median of several."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from perf import procfs, wrk
from perf.contender import Contender
from perf.lag import Lag, summarise
from perf.load import Load
from perf.stack import BusyapiStack, Totals
from perf.wrk import Result

WARM_UP_SECONDS = 2


@dataclass(frozen=True)
class Run:
    """One run of one contender."""

    wrk: Result
    usages_per_second: float
    resident_bytes: dict[str, int]
    """Memory of each process at the end."""
    cpu_per_million: dict[str, float]
    """CPU seconds of each process for a million usages, until the last one is archived."""
    lag: Lag | None
    fast_path_share: float | None = None
    """The share of the requests that the fast path answered."""

    @property
    def server_cpu(self) -> float:
        """Return the CPU of the first process: the API, or the server that it is compared with."""
        return next(iter(self.cpu_per_million.values()))


@dataclass
class Tally:
    """The sum of wrk's counts for one contender, with warm-ups."""

    answered: int = 0
    runs: int = 0
    errors: int = 0

    def add(self, result: Result) -> None:
        """Add the counts of a run."""
        self.runs += 1
        self.answered += result.accepted
        self.errors += result.not_2xx + result.socket_errors


class Driver:
    """Drives one contender with one load."""

    def __init__(
        self, contender: Contender, load: Load, folder: Path, connections: int, core: int | None
    ) -> None:
        self.contender = contender
        self.load = load = contender.authorize(load)
        self.tally = Tally()
        self._folder = folder
        self._connections = connections
        self._script = load.write_script(folder)
        self._prefix = [] if core is None else ["taskset", "-c", str(core)]

    def command(self, seconds: int) -> list[str]:
        """Return the command line of a run."""
        line = wrk.command(
            self.load, self._script, self.contender.origin, seconds, self._connections
        )
        return [*self._prefix, *line]

    def drive(self, seconds: int) -> Result:
        """Run wrk once."""
        result = wrk.run(self.command(seconds), self._folder / "wrk.log", seconds)
        self.tally.add(result)
        return result

    def measure(self, seconds: int) -> Run:
        """Warm up, run, and wait until all is archived."""
        self.drive(WARM_UP_SECONDS)
        if isinstance(self.contender, BusyapiStack):
            return self._measure_durable(self.contender, seconds)
        before = _cpu(self.contender)
        result = self.drive(seconds)
        return self._run(result, before, result.accepted)

    def _measure_durable(self, contender: BusyapiStack, seconds: int) -> Run:
        start = contender.settle(self.load)
        before = _cpu(contender)
        with contender.sample_lag() as sampler:
            result = self.drive(seconds)
            end = contender.settle(self.load)
        lag = summarise(sampler.samples, sampler.missed)
        stored, share = end.stored - start.stored, fast_path_share(start, end)
        return self._run(result, before, stored, lag, share)

    def _run(
        self,
        result: Result,
        before: dict[str, float],
        usages: int,
        lag: Lag | None = None,
        share: float | None = None,
    ) -> Run:
        processes = self.contender.processes
        million = max(usages, 1) / 1e6
        return Run(
            wrk=result,
            usages_per_second=round(result.accepted_per_second * self.load.usages, 1),
            resident_bytes={n: procfs.resident_bytes(p.pid) for n, p in processes.items()},
            cpu_per_million={
                name: round((seconds - before[name]) / million, 2)
                for name, seconds in _cpu(self.contender).items()
            },
            lag=lag,
            fast_path_share=share,
        )


def _cpu(contender: Contender) -> dict[str, float]:
    return {name: procfs.cpu_seconds(process.pid) for name, process in contender.processes.items()}


def fast_path_share(start: Totals, end: Totals) -> float | None:
    """Return the share of the answers between two times that were the fast path's."""
    answers = end.statuses.total() - start.statuses.total()
    if start.fast_path is None or end.fast_path is None or not answers:
        return None
    return (end.fast_path - start.fast_path) / answers


def median_run(runs: Sequence[Run]) -> Run:
    """Return the run with the median rate: its figures belong together.

    Of an even number of runs it is the lower of the two in the middle.
    """
    return sorted(runs, key=lambda run: run.usages_per_second)[(len(runs) - 1) // 2]


def median_ratio(
    runs: Sequence[Run],
    references: Sequence[Run],
    figure: Callable[[Run], float] = attrgetter("usages_per_second"),
) -> float:
    """Return the median of each run's figure divided by that of its reference run.

    Both runs of a pair are within seconds of each other, so other load affects both.
    """
    pairs = zip(runs, references, strict=True)
    return statistics.median(figure(run) / figure(reference) for run, reference in pairs)
