"""The result, for `markdown` and for JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from bench import floors
from bench.floors import Floor
from bench.outcome import Outcome
from bench.runs import median_ratio, median_run
from perf.machine import Machine


@dataclass(frozen=True)
class Report:
    """All results of a run."""

    machine: Machine
    options: dict[str, int]
    scenarios: dict[str, list[Outcome]]
    errors: list[str]
    """Reasons why scenarios have no figures: a process that did not start, or ended."""

    @property
    def rows(self) -> list[Outcome]:
        """Return the rows of all scenarios."""
        return [row for rows in self.scenarios.values() for row in rows]

    @property
    def failures(self) -> list[str]:
        """Return the failures of the benchmark: disagreeing counts and errors."""
        disagreed = [f"{row.title}: {failure}" for row in self.rows for failure in row.failures]
        return [*self.errors, *disagreed]

    @property
    def ratios(self) -> dict[str, dict[str, float]]:
        """Return the ratios of each scenario's first row to the others, by their titles."""
        return {
            name: {row.title: ratio(rows[0], row) for row in rows[1:]}
            for name, rows in self.scenarios.items()
            if len(rows) > 1
        }

    @property
    def floors(self) -> list[Floor]:
        """Return the floors of the scenarios that ran."""
        rates = {
            name: median_run(rows[0].runs).usages_per_second
            for name, rows in self.scenarios.items()
        }
        judgements = []
        if "posts" in rates:
            judgements.append(floors.posts(rates["posts"]))
        if "process" in rates:
            judgements.append(floors.of_noop(ratio(*self.scenarios["process"])))
            judgements.append(floors.whole_machine(rates["process"]))
        if "batches" in rates:
            judgements.append(floors.batches(rates["batches"]))
            judgements.append(floors.batches_goal(rates["batches"]))
            judgements.append(floors.flusher(self._flusher_rate()))
        if "pinned" in rates:
            judgements += self._references()
        if lags := [run.lag.seconds for row in self.rows for run in row.runs if run.lag]:
            judgements.append(floors.lag(max(lags)))
        return judgements

    def _references(self) -> list[Floor]:
        fast, plain, aiohttp, webdis, nginx = self.scenarios["pinned"]
        return [
            floors.reference(row.title, other.title, ratio(row, other), threshold)
            for row, other, threshold in (
                (fast, aiohttp, floors.OF_AIOHTTP),
                (fast, webdis, floors.OF_WEBDIS),
                (fast, nginx, floors.OF_NGINX),
                (plain, aiohttp, floors.PLAIN_OF_AIOHTTP),
            )
        ]

    def _flusher_rate(self) -> float:
        """Return the usages that one core of flusher archives in a second."""
        run = median_run(self.scenarios["batches"][0].runs)
        return 1e6 / max(run.cpu_per_million.get("flusher", 0), 0.001)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "machine": asdict(self.machine),
            "options": self.options,
            "scenarios": {
                name: [asdict(row) | {"median": asdict(median_run(row.runs))} for row in rows]
                for name, rows in self.scenarios.items()
            },
            "ratios": self.ratios,
            "floors": [asdict(floor) for floor in self.floors],
            "failures": self.failures,
        }


def ratio(row: Outcome, other: Outcome) -> float:
    """Return the median of the rounds' ratios."""
    return round(median_ratio(row.runs, other.runs), 3)
