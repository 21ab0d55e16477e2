"""The result, for `markdown` and for JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from bench import floors
from bench.floors import Floor
from bench.machine import Machine
from bench.outcome import Outcome
from bench.runs import median_ratio, median_run


@dataclass(frozen=True)
class Report:
    """Everything that was found."""

    machine: Machine
    options: dict[str, int]
    scenarios: dict[str, list[Outcome]]
    errors: list[str]
    """Why scenarios have no figures: a process that would not start, or ended."""

    @property
    def rows(self) -> list[Outcome]:
        """All rows of all scenarios."""
        return [row for rows in self.scenarios.values() for row in rows]

    @property
    def failures(self) -> list[str]:
        """What makes the benchmark fail."""
        disagreed = [f"{row.title}: {each}" for row in self.rows for each in row.failures]
        return [*self.errors, *disagreed]

    @property
    def ratios(self) -> dict[str, float]:
        """The first row of a scenario against the second, where there is one."""
        return {
            name: round(median_ratio(rows[0].runs, rows[1].runs), 3)
            for name, rows in self.scenarios.items()
            if len(rows) > 1
        }

    @property
    def floors(self) -> list[Floor]:
        """Those of the scenarios that ran."""
        rates = {
            name: median_run(rows[0].runs).usages_per_second
            for name, rows in self.scenarios.items()
        }
        found = []
        if "posts" in rates:
            found.append(floors.posts(rates["posts"]))
        if "process" in rates:
            found.append(floors.of_noop(self.ratios["process"]))
        if "batches" in rates:
            found.append(floors.batches(rates["batches"]))
        if lags := [run.lag.seconds for row in self.rows for run in row.runs if run.lag]:
            found.append(floors.lag(max(lags)))
        return found

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return {
            "machine": asdict(self.machine),
            "options": self.options,
            "scenarios": {
                name: [asdict(row) | {"median": asdict(median_run(row.runs))} for row in rows]
                for name, rows in self.scenarios.items()
            },
            "ratios": self.ratios,
            "floors": [asdict(each) for each in self.floors],
            "failures": self.failures,
        }
