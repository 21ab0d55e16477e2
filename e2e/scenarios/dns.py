"""Stop the cluster's DNS while Valkey restarts: pods reconnect to the last good address."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from e2e.kube import Kube, is_ready, wait_for
from e2e.measure import Figures, ScenarioFailed, require_short_outage
from e2e.release import NAME, Release
from e2e.report import Report
from e2e.scenarios.faults import disturb

DNS_NAMESPACE, DNS = "kube-system", "coredns"
WITHOUT_DNS_SECONDS = 45.0
OUTAGE_SECONDS = 25.0
"""Valkey's restart and the reconnection. It is over long before DNS is back."""
RESTARTED_SECONDS = 60


def require_outage_shorter_than_that_of_dns(result: Figures) -> None:
    """Check that only the restart interrupted posts."""
    require_short_outage(result, OUTAGE_SECONDS)


def restart_valkey_without_dns(release: Release, report: Report) -> None:
    """Stop DNS, end Valkey's process, and start DNS again much later."""
    name = "Valkey restarts while the cluster's DNS is stopped"
    with disturb(release, report, name, require_outage_shorter_than_that_of_dns) as row:
        if not has_dns(release.kube):
            row.skipped = True
            row.notes.append(f"needs a cluster whose DNS is Deployment {DNS} of {DNS_NAMESPACE}")
            return
        with stop_dns(release.kube):
            end = time.monotonic() + WITHOUT_DNS_SECONDS
            restarts = count_restarts(release.kube)
            # Process 1 of the container: it starts again in the same pod, with the same address.
            release.kube.run(f"{NAME}-valkey-0", "sh", "-c", "kill -TERM 1")
            wait_for(
                lambda: (
                    count_restarts(release.kube) > restarts
                    and all(map(is_ready, release.kube.pods("valkey")))
                ),
                "Valkey to restart",
                RESTARTED_SECONDS,
            )
            time.sleep(max(0.0, end - time.monotonic()))
            if release.request("/api/usages/count").status != 200:
                raise ScenarioFailed("not connected again before DNS was back")
        row.notes.append(f"DNS was stopped for {WITHOUT_DNS_SECONDS:.0f} s")


def has_dns(kube: Kube) -> bool:
    """Return whether this machine can stop the cluster's DNS."""
    return kube.exists(f"/apis/apps/v1/namespaces/{DNS_NAMESPACE}/deployments/{DNS}")


def count_restarts(kube: Kube) -> int:
    """Count the restarts of Valkey's container."""
    return sum(
        status.restart_count
        for pod in kube.pods("valkey")
        for status in pod.status.container_statuses or ()
    )


@contextmanager
def stop_dns(kube: Kube) -> Iterator[None]:
    """Stop the cluster's DNS, and start it again at the end."""
    replicas = kube.apps.read_namespaced_deployment(DNS, DNS_NAMESPACE).spec.replicas
    scale_dns(kube, 0)
    try:
        yield
    finally:
        scale_dns(kube, replicas)


def scale_dns(kube: Kube, replicas: int) -> None:
    """Set the number of DNS pods, and wait for it."""
    kube.apps.patch_namespaced_deployment_scale(
        DNS, DNS_NAMESPACE, {"spec": {"replicas": replicas}}
    )

    def is_scaled() -> bool:
        status = kube.apps.read_namespaced_deployment(DNS, DNS_NAMESPACE).status
        return (status.replicas or 0) == (status.ready_replicas or 0) == replicas

    wait_for(is_scaled, f"{replicas} DNS pods", RESTARTED_SECONDS)


SCENARIOS = (restart_valkey_without_dns,)
