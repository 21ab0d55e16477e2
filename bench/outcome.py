"""What was found of one contender under one load."""

from dataclasses import dataclass, field

from bench.runs import Run
from perf.reconcile import Counts


@dataclass
class Outcome:
    """Its runs, and whether all who counted agreed."""

    title: str
    usages_per_request: int
    commands: list[str]
    """The processes, then the load."""
    runs: list[Run] = field(default_factory=list)
    counts: Counts | None = None
    """None for a no-op: it stores nothing."""
    failures: list[str] = field(default_factory=list)
    keeps: str = "nothing"
    """What it has done with a usage when it answers."""
    versions: dict[str, str] = field(default_factory=dict)
    durability: dict[str, str] = field(default_factory=dict)

    @property
    def not_201(self) -> int:
        """Answers with another status, warm-ups included where somebody counted them."""
        if self.counts:
            return sum(self.counts.not_201.values())
        return sum(run.wrk.not_2xx for run in self.runs)
