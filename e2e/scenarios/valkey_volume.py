"""Valkey's volume is full, and moved to another claim; its pod comes before those of the API.

The steps are those of docs/how-to. Nothing that was answered 201 may be lost.
"""

import time
from collections.abc import Callable
from http import HTTPStatus

from kubernetes.client import ApiException

from e2e.kube import is_ready, wait_for
from e2e.measure import ScenarioFailed, require_short_outage
from e2e.pages import run_blocks
from e2e.release import NAME, Release
from e2e.report import Report
from e2e.scenarios.faults import LABEL, describe_failures
from e2e.shell import open_shell

RATE = 60.0
STEADY_SECONDS = 3.0
OUTAGE_SECONDS = 180.0
FULL_SECONDS = 120
VALKEY = f"{NAME}-valkey-0"
VOLUME = "64Mi"
FULL_MESSAGES = ("Short write", "No space left on device")
BALLAST = "cat /dev/zero > /data/ballast; sync"
SHARE = 4
"""Pods whose requests fill a node."""
PODS = 10


def install_release(release: Release, report: Report) -> None:
    """Install the release with a small volume."""
    with report.row("install for Valkey's volume"):
        values = {"valkey": {"persistence": {"size": VOLUME}}}
        release.install({**release.routing_values(), **values})
        release.wait_until_routed()


def fill_volume(release: Release, report: Report) -> None:
    """Fill the volume under load: Valkey stops and names the reason; with space it continues."""
    with (
        report.row("Valkey's volume is full, then has space again") as row,
        open_shell(release) as bash,
    ):
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            release.kube.run(VALKEY, "sh", "-c", BALLAST, check=False)
            wait_for(lambda: is_full(release), "Valkey to name the reason", FULL_SECONDS)
            # Valkey runs only for seconds between its restarts, so the page's pod gives it space.
            run_blocks(bash, "repair-aof")
            release.kube.run("valkey-shell", "rm", "/data/ballast")
            run_blocks(bash, "repair-start")
            release.kube.wait_until_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.notes += describe_failures(row.figures)
        row.verdict = release.audit()
        require_short_outage(row.figures, OUTAGE_SECONDS)


def is_full(release: Release) -> bool:
    """Return whether the log of the container before says what the runbook shows."""
    try:
        log = release.kube.core.read_namespaced_pod_log(VALKEY, release.namespace, previous=True)
    except ApiException as error:
        if error.status != HTTPStatus.BAD_REQUEST:  # it has not restarted yet
            raise
        return False
    return any(text in str(log) for text in FULL_MESSAGES)


def move_volume(release: Release, report: Report) -> None:
    """Follow move-valkey-volume.md under load."""
    with (
        report.row("Valkey moved to another volume by its page") as row,
        open_shell(release) as bash,
    ):
        bash.settings |= {"CLASS": "", "SIZE": "128Mi"}
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            run_blocks(bash, "move-valkey")
            release.kube.wait_until_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        run_blocks(bash, "move-valkey-finish")
        row.notes += describe_failures(row.figures)
        row.verdict = release.audit()


def place_valkey_first(release: Release, report: Report) -> None:
    """Fill a node with API pods and delete Valkey's pod: it takes the room of an API pod."""
    with report.row("Valkey comes before API pods on a full node") as row:
        node = release.kube.nodes()[-1]
        share = f"{parse_milli_cores(node.status.allocatable['cpu']) // SHARE}m"
        place = {LABEL: node.metadata.labels[LABEL]}
        requests = {"requests": {"cpu": share}}
        api = {"replicaCount": 1, "autoscaling": {"enabled": False}, "nodeSelector": place}
        release.upgrade(
            {
                **api,
                "priorityClass": {"create": True},
                "resources": requests,
                "valkey": {"nodeSelector": place, "resources": requests},
            }
        )
        scale = {"spec": {"replicas": PODS}}
        release.kube.apps.patch_namespaced_deployment_scale(NAME, release.namespace, scale)
        wait_for(lambda: count_pending(release) > 0, "API pods that find no room")
        began = time.monotonic()
        release.kube.delete_pod(VALKEY, grace=0)
        wait_for(lambda: len(release.kube.list_ready_pods("valkey")) == 1, "Valkey to be ready")
        waited, pending = time.monotonic() - began, count_pending(release)
        row.notes.append(f"ready after {waited:.0f} s, while {pending} API pods were Pending")
        if not any(is_ready(pod) for pod in release.kube.pods("api")):
            raise ScenarioFailed("no API pod is left")
        scale = {"spec": {"replicas": 1}}
        release.kube.apps.patch_namespaced_deployment_scale(NAME, release.namespace, scale)
        release.kube.wait_until_settled()
        row.verdict = release.audit()


def parse_milli_cores(quantity: str) -> int:
    """Return a quantity of CPU in thousandths of a core."""
    return int(quantity[:-1]) if quantity.endswith("m") else int(float(quantity) * 1000)


def count_pending(release: Release) -> int:
    """Return how many API pods wait for a node."""
    return sum(pod.status.phase == "Pending" for pod in release.kube.pods("api"))


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (
    install_release,
    fill_volume,
    move_volume,
    place_valkey_first,
)
