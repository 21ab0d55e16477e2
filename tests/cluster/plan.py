"""Which scenarios share a release, in which order."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.report import Report
from tests.cluster.scenarios import (
    autoscale,
    boundaries,
    disturb,
    external,
    install,
    lifetime,
    observability,
    operations,
    retention,
    rotation,
    runbooks,
)
from tests.cluster.site import Site
from tests.cluster.target import Target


@dataclass(frozen=True)
class Part:
    """Scenarios in one namespace."""

    name: str
    scenarios: tuple[Callable[[Site, Report], None], ...]
    partitions: int = 1

    def run(self, site: Site, report: Report) -> None:
        """All of them, until one fails."""
        for each in self.scenarios:
            each(site, report)


@dataclass(frozen=True)
class Context:
    """What every part is given."""

    target: Target
    report: Report
    folder: Path

    def site(self, part: Part) -> Site:
        """A namespace that no other run has."""
        name = f"e2e-{os.getpid()}-{part.name}"
        return Site(self.target, name, partitions=part.partitions)


SHORT = (Part("short", (install.install, install.rollout)),)
FULL = (
    Part("install", (install.install, install.rollout, install.rollback)),
    Part("disturb", disturb.SCENARIOS),
    Part("lifetime", lifetime.SCENARIOS),
    Part("runbooks", runbooks.SCENARIOS),
    Part("operations", operations.SCENARIOS),
    Part("retention", (retention.retain,)),
    Part("observability", observability.SCENARIOS),
    Part("boundaries", boundaries.SCENARIOS, partitions=boundaries.PARTITIONS),
    Part("sentinel", (external.with_sentinels,)),
    Part("rotation", rotation.SCENARIOS),
    Part("cluster", (external.with_cluster,), partitions=external.PARTITIONS),
    Part("autoscale", autoscale.SCENARIOS),
)
