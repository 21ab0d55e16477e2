"""The result, for `markdown` and for JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from bench import goals
from bench.goals import Goal
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
    def goals(self) -> list[Goal]:
        """Return the goals of the scenarios that ran."""
        rates = {
            name: median_run(rows[0].runs).usages_per_second
            for name, rows in self.scenarios.items()
        }
        judged = []
        if "posts" in rates:
            judged.append(goals.judge_posts(rates["posts"]))
        if "process" in rates:
            judged.append(goals.judge_ratio_to_noop(ratio(*self.scenarios["process"])))
            judged.append(goals.judge_whole_machine(rates["process"]))
        if "batches" in rates:
            judged.append(goals.judge_batches(rates["batches"]))
            judged.append(goals.judge_batches_on_fast_machine(rates["batches"]))
            judged.append(goals.judge_flusher(self._flusher_rate()))
        if "pinned" in rates:
            judged += self._references()
        if "credentials" in rates:
            judged += self._credentials()
        if lags := [run.lag.seconds for row in self.rows for run in row.runs if run.lag]:
            judged.append(goals.judge_lag(max(lags)))
        return judged

    def _references(self) -> list[Goal]:
        fast, plain, aiohttp, webdis, nginx = self.scenarios["pinned"]
        return [
            goals.judge_ratio(row.title, other.title, ratio(row, other), threshold)
            for row, other, threshold in (
                (fast, aiohttp, goals.MIN_RATIO_TO_AIOHTTP),
                (fast, webdis, goals.MIN_RATIO_TO_WEBDIS),
                (fast, nginx, goals.MIN_RATIO_TO_NGINX),
                (plain, aiohttp, goals.MIN_PLAIN_RATIO_TO_AIOHTTP),
            )
        ]

    def _credentials(self) -> list[Goal]:
        without, *others = self.scenarios["credentials"]
        return [
            goals.judge_credential(row.title, ratio(row, without), goals.MIN_RATIO_WITH_CREDENTIAL)
            for row in others
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
            "goals": [asdict(goal) for goal in self.goals],
            "failures": self.failures,
        }


def ratio(row: Outcome, other: Outcome) -> float:
    """Return the median of the rounds' ratios."""
    return round(median_ratio(row.runs, other.runs), 3)
