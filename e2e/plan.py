"""The parts of a run. Each part has scenarios that share a release, in order."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from e2e.release import Release
from e2e.report import Report
from e2e.scenarios import (
    autoscale,
    boundaries,
    closed,
    dns,
    external,
    faults,
    install,
    lifetime,
    nodes,
    observability,
    operations,
    partitions,
    probe,
    production,
    protection,
    retention,
    rotation,
    runbooks,
    spread,
    spread_sentinels,
    valkey_ha,
    valkey_scale,
    valkey_secret,
    valkey_tls,
    valkey_volume,
)
from e2e.target import Target


@dataclass(frozen=True)
class Part:
    """Scenarios in one namespace."""

    name: str
    scenarios: tuple[Callable[[Release, Report], None], ...]
    partitions: int = 1

    def run(self, release: Release, report: Report) -> None:
        """Run all scenarios until one fails."""
        for scenario in self.scenarios:
            scenario(release, report)


@dataclass(frozen=True)
class Context:
    """The target and the report of a run."""

    target: Target
    report: Report
    folder: Path

    def release(self, part: Part) -> Release:
        """Return a release in a new namespace."""
        name = f"e2e-{os.getpid()}-{part.name}"
        return Release(self.target, name, partitions=part.partitions)


SHORT = (Part("short", (install.install, install.upgrade)),)
FULL = (
    Part("install", (install.install, install.upgrade, install.roll_back)),
    Part("faults", (*faults.SCENARIOS, *dns.SCENARIOS)),
    Part("nodes", nodes.SCENARIOS),
    Part("lifetime", lifetime.SCENARIOS),
    Part("runbooks", runbooks.SCENARIOS),
    Part("operations", operations.SCENARIOS),
    Part("protection", protection.SCENARIOS),
    Part("valkey-tls", valkey_tls.SCENARIOS),
    Part("valkey-ha", valkey_ha.SCENARIOS),
    Part("valkey-ha-tls", valkey_scale.TLS_SCENARIOS),
    Part("valkey-ha-secret", valkey_secret.SCENARIOS),
    Part("valkey-scale", (valkey_scale.change_servers,)),
    Part("valkey-volume", valkey_volume.SCENARIOS),
    Part("retention", (retention.delete_old_usages,)),
    Part("observability", (*observability.SCENARIOS, probe.probe_from_outside)),
    Part("partitions", partitions.SCENARIOS, partitions=partitions.FEW),
    Part("spread", spread.SCENARIOS, partitions=spread.PARTITIONS),
    Part("spread-sentinel", spread_sentinels.SCENARIOS, partitions=spread.PARTITIONS),
    Part("boundaries", boundaries.SCENARIOS, partitions=boundaries.PARTITIONS),
    Part("closed", closed.SCENARIOS),
    Part("production", production.SCENARIOS),
    Part("sentinel", (external.run_with_sentinels,)),
    Part("rotation", rotation.SCENARIOS),
    Part("cluster", (external.run_with_cluster,), partitions=external.PARTITIONS),
    Part("autoscale", autoscale.SCENARIOS),
)
