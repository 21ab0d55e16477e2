"""The result, for `markdown` and for JSON."""

from dataclasses import asdict, dataclass
from operator import attrgetter
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
        if "deployed" in rates:
            judged += self._deployed()
        if "proxies" in rates:
            judged += self._proxies()
        if "replicated" in rates:
            replicated, fsync, *_ = self.scenarios["replicated"]
            judged.append(_judge_ratio(replicated, fsync, goals.MIN_RATIO_REPLICATED))
        if lags := [run.lag.seconds for row in self.rows for run in row.runs if run.lag]:
            judged.append(goals.judge_lag(max(lags)))
        return judged

    def _references(self) -> list[Goal]:
        fast, plain, aiohttp, webdis, nginx = self.scenarios["pinned"]
        return [
            _judge_ratio(fast, aiohttp, goals.MIN_RATIO_TO_AIOHTTP),
            _judge_ratio(fast, webdis, goals.MIN_RATIO_TO_WEBDIS),
            _judge_cpu(fast, nginx, goals.MAX_CPU_RATIO_TO_NGINX),
            _judge_ratio(plain, aiohttp, goals.MIN_PLAIN_RATIO_TO_AIOHTTP),
        ]

    def _credentials(self) -> list[Goal]:
        without, *others = self.scenarios["credentials"]
        return [_judge_ratio(row, without, goals.MIN_RATIO_WITH_CREDENTIAL) for row in others]

    def _deployed(self) -> list[Goal]:
        plain, headers, _, deployed = self.scenarios["deployed"]
        return [
            _judge_ratio(headers, plain, goals.MIN_RATIO_WITH_HEADERS),
            _judge_ratio(deployed, plain, goals.MIN_RATIO_AS_DEPLOYED),
        ]

    def _proxies(self) -> list[Goal]:
        direct, nginx, haproxy, *others = self.scenarios["proxies"]
        limit = goals.MAX_CPU_RATIO_BEHIND_PROXY
        return [
            *(_judge_cpu(row, direct, limit) for row in (nginx, haproxy)),
            *(
                goals.judge_fast_path(row.title, min(run.fast_path_share or 0 for run in row.runs))
                for row in (nginx, haproxy, *others)
            ),
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


def _judge_ratio(row: Outcome, other: Outcome, threshold: float) -> Goal:
    return goals.judge_ratio(row.title, other.title, ratio(row, other), threshold)


def _judge_cpu(row: Outcome, other: Outcome, threshold: float) -> Goal:
    cpu = round(median_ratio(row.runs, other.runs, attrgetter("server_cpu")), 3)
    return goals.judge_cpu(row.title, other.title, cpu, threshold)
