"""Let a blackbox-exporter of this machine probe the API from outside, as the chart's Probe says."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client

from e2e.kube import wait_for
from e2e.release import Release
from e2e.report import Report
from e2e.scenarios.observability import LOADED_SECONDS, query, wait_firing, wait_resolved
from testkit.blackbox import MODULE, PROGRAM, BlackboxExporter, find_program

ALERT = "BusyapiProbeFailing"
MONITORING, PROMETHEUS = "monitoring", "main"


def probe_from_outside(release: Release, report: Report) -> None:
    """Probe through the Ingress; take the Ingress away, which fires the alert; put it back."""
    with report.row(f"{ALERT} fires and resolves") as row:
        if not find_program() or release.target.program is None:
            row.skipped = True
            row.notes.append(f"needs {PROGRAM}, and pods that reach this machine (E2E_CLUSTER)")
            return
        address = release.kube.node_addresses()[0]
        with (
            selected_probes(release),
            tempfile.TemporaryDirectory(prefix="busyapi-e2e-") as folder,
            # No DNS knows the host of the Ingress.
            BlackboxExporter(Path(folder), host=address, headers={"Host": release.host}) as prober,
        ):
            probe = {
                "enabled": True,
                "proberUrl": f"{address}:{prober.port}",
                "module": MODULE,
                "targets": [f"http://127.0.0.1:{release.target.port}/openapi.json"],
                "interval": "5s",
            }
            rules = {"overrides": {ALERT: {"for": "5s"}}}
            metrics = {"probe": probe, "prometheusRule": rules}
            release.upgrade({**release.routing_values(), "metrics": metrics})
            wait_for(lambda: query_probes(release) == [1.0], "a good probe", LOADED_SECONDS)
            release.upgrade({"ingress": {"enabled": False}})
            wait_firing(release, ALERT, LOADED_SECONDS)
            release.upgrade({"ingress": {"enabled": True}})
            wait_resolved(release, ALERT)
            release.upgrade({"metrics": {"probe": {"enabled": False}}})
        row.notes.append("with the Ingress, without it, and with it again")


def query_probes(release: Release) -> list[float]:
    """Return the results of the probes of this release: 1 for success."""
    text = f'probe_success{{namespace="{release.namespace}"}}'
    result = query(release, "/query", query=text)["result"]
    return [float(series["value"][1]) for series in result]


@contextmanager
def selected_probes(release: Release) -> Iterator[None]:
    """Let the cluster's Prometheus select every Probe, which it does not by itself."""
    customs: Any = client.CustomObjectsApi(release.kube.api)

    def select(selector: dict[str, str] | None) -> None:
        customs.patch_namespaced_custom_object(
            "monitoring.coreos.com",
            "v1",
            MONITORING,
            "prometheuses",
            PROMETHEUS,
            {"spec": {"probeSelector": selector, "probeNamespaceSelector": selector}},
        )

    select({})
    try:
        yield
    finally:
        select(None)
