"""The result of one contender under one load."""

from dataclasses import dataclass, field

from bench.runs import Run
from perf.reconcile import Counts


@dataclass
class Outcome:
    """The runs of a contender, and whether all counts agree."""

    title: str
    usages_per_request: int
    commands: list[str]
    """The processes, then the load."""
    runs: list[Run] = field(default_factory=list)
    counts: Counts | None = None
    """None for a no-op: it stores nothing."""
    failures: list[str] = field(default_factory=list)
    keeps: str = "nothing"
    """Where a usage is stored when the contender answers."""
    versions: dict[str, str] = field(default_factory=dict)
    durability: dict[str, str] = field(default_factory=dict)

    @property
    def not_201(self) -> int:
        """Return the answers with another status, with warm-ups if they were counted."""
        if self.counts:
            return sum(self.counts.not_201.values())
        return sum(run.wrk.not_2xx for run in self.runs)
