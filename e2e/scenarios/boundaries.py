"""Check four partitions, limits of network, rights and evictions, and Prometheus' targets."""

import json
import time
from base64 import b64decode
from typing import Any

from kubernetes.client import ApiException

from e2e import pod_archive
from e2e.environment import default_image
from e2e.kube import Kube, wait_for
from e2e.measure import ScenarioFailed, require_none_failed
from e2e.release import NAME, Release
from e2e.report import Report

RATE = 60.0
PARTITIONS = 4
OUTSIDE_POD = "outside"
VALKEY = f"{NAME}-valkey-0"
PORTS = {
    "api": (NAME, 80),
    "api metrics": ("", 9090),
    "flusher": (f"{NAME}-flusher-0.{NAME}-flusher", 9100),
    "flusher lookups": (f"{NAME}-flusher-0.{NAME}-flusher", 9101),
    "valkey": (f"{NAME}-valkey", 6379),
}
HIDDEN = ("/metrics", "/livez", "/readyz", "/usages/1", "/api/../metrics")
OPEN_TO_ALL = {"api"}
PROBE = """
import json, socket, sys
for name, (host, port) in json.loads(sys.argv[1]).items():
    try:
        socket.create_connection((host, port), 3).close()
        print(name)
    except OSError:
        pass
"""
SAFE: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
MONITORS = {"serviceMonitor": "serviceMonitor/{}/", "annotations": "podMonitor/monitoring/"}


def start_partitions(release: Release, report: Report) -> None:
    """Install four partitions, and check that each archives to its own volume."""
    with report.row("four partitions, four volumes") as row:
        monitor = {"serviceMonitor": {"enabled": True, "interval": "5s"}}
        small = {"persistence": {"size": "1Gi"}}
        release.install(
            {
                **release.routing_values(),
                "config": {"partitions": PARTITIONS},
                "flusher": {**small, "resources": {"requests": {"cpu": "50m"}}},
                "metrics": monitor,
            }
        )
        release.wait_until_routed()
        with release.load(RATE) as load:
            time.sleep(8)
            row.figures = load.stop()
        row.verdict = release.audit()
        require_none_failed(row.figures)
        lines = {
            n: len(part.lines) for n, part in pod_archive.read(release.kube).partitions.items()
        }
        claims = release.kube.core.list_namespaced_persistent_volume_claim(release.namespace).items
        names = {claim.metadata.name for claim in claims if claim.status.phase == "Bound"}
        if not {f"archive-{NAME}-flusher-{n}" for n in range(PARTITIONS)} <= names:
            raise ScenarioFailed(f"bound claims: {names}")
        if len(lines) != PARTITIONS or not all(lines.values()):
            raise ScenarioFailed(f"archived by partition: {lines}")
        row.notes.append(f"archived by partition: {lines}")


def check_network(release: Release, report: Report) -> None:
    """Check that another pod reaches only the API with policies, and everything without them.

    By default all pods have a policy. They are disabled once, to show that the probe works.
    """
    with report.row("NetworkPolicy: a pod outside the release reaches only the API") as row:
        release.kube.apply(make_outside_pod())
        wait_for(lambda: _is_running(release.kube, OUTSIDE_POD), "the outside pod to run", 60)
        wait_for(lambda: list_reached_ports(release) == OPEN_TO_ALL, "the default policies", 30)
        release.upgrade({"networkPolicy": {"enabled": False}})
        wait_for(
            lambda: list_reached_ports(release) == set(PORTS) - {"valkey"}, "Valkey's policy", 30
        )
        release.upgrade({"networkPolicy": {"valkey": {"enabled": False}}})
        wait_for(
            lambda: list_reached_ports(release) == set(PORTS), "the probe to reach everything", 30
        )
        before = list_reached_ports(release)
        release.upgrade({"networkPolicy": {"enabled": True, "valkey": {"enabled": True}}})
        wait_for(lambda: list_reached_ports(release) == OPEN_TO_ALL, "the policy to hold", 30)
        with release.load(RATE) as load:
            time.sleep(3)
            release.helm_test()
            row.figures = load.stop()
        row.verdict = release.audit()
        require_none_failed(row.figures)
        reached = sorted(list_reached_ports(release))
        row.notes.append(f"without a policy: {sorted(before)}; with policies: {reached}")


def make_outside_pod() -> dict[str, Any]:
    """Return a pod that does not belong to the release."""
    command = ["python3", "-c", "import signal; signal.pause()"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": OUTSIDE_POD},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "enableServiceLinks": False,
            "containers": [
                {
                    "name": OUTSIDE_POD,
                    "image": default_image(),
                    "imagePullPolicy": "IfNotPresent",
                    "command": command,
                    "securityContext": SAFE,
                }
            ],
        },
    }


def _is_running(kube: Kube, name: str) -> bool:
    return bool(kube.core.read_namespaced_pod(name, kube.namespace).status.phase == "Running")


def list_reached_ports(release: Release) -> set[str]:
    """Return the ports that the outside pod reaches."""
    address = release.kube.list_ready_pods("api")[0].status.pod_ip
    ports = {name: (host or address, port) for name, (host, port) in PORTS.items()}
    output = release.kube.run(OUTSIDE_POD, "python3", "-c", PROBE, json.dumps(ports))
    return set(output.decode().splitlines())


def check_ingress(release: Release, report: Report) -> None:
    """Check that neither metrics nor probes are available through the ingress controller."""
    with report.row("no metrics and no probes through Ingress and Gateway") as row:
        for host in release.hosts.values():
            release.wait_until_routed(host)
            for path in HIDDEN:
                if (status := release.request(path, host=host).status) != 404:
                    raise ScenarioFailed(f"{host}{path} answers {status}")
            for path in ("/", "/openapi.json", "/api/usages/count"):
                if (status := release.request(path, host=host).status) != 200:
                    raise ScenarioFailed(f"{host}{path} answers {status}")
        row.notes.append(f"404 for {', '.join(HIDDEN)} through {' and '.join(release.hosts)}")


def check_rights(release: Release, report: Report) -> None:
    """Check that passwords survive upgrades, and that each role has only its rights in Valkey."""
    with report.row("Secret, Valkey's users, ServiceAccount") as row:
        secret = _read_secret(release)
        release.upgrade({"podAnnotations": {"busyapi.test/again": "yes"}})
        if _read_secret(release) != secret:
            raise ScenarioFailed("an upgrade changed the passwords")
        for role in ("api", "flusher"):
            password = b64decode(secret[f"{role}-password"]).decode()
            check_refusals(release, role, password)
        output = ask_valkey(release, "PING")
        if "NOAUTH" not in output:
            raise ScenarioFailed(f"without a password Valkey replies {output}")
        for pod in (
            release.kube.pods("api") + release.kube.pods("flusher") + release.kube.pods("valkey")
        ):
            mounts = [m.mount_path for c in pod.spec.containers for m in c.volume_mounts]
            if any("serviceaccount" in mount for mount in mounts):
                raise ScenarioFailed(f"{pod.metadata.name} has a token of the API server: {mounts}")
        row.notes.append(
            "Valkey refuses both roles FLUSHALL, KEYS, CONFIG SET, ACL LIST and foreign keys"
        )


def _read_secret(release: Release) -> dict[str, str]:
    return dict(release.kube.core.read_namespaced_secret(f"{NAME}-valkey", release.namespace).data)


def check_refusals(release: Release, role: str, password: str) -> None:
    """Check that Valkey refuses a role every command that it does not need."""
    login = ("--user", role, "--pass", password, "--no-auth-warning")
    if not ask_valkey(release, *login, "GET", "busyapi:{0}:seq").strip().isdigit():
        raise ScenarioFailed(f"{role} cannot read its own keys")
    for command in (
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "SET", "appendonly", "no"),
        ("ACL", "LIST"),
        ("GET", "another-installation"),
    ):
        output = ask_valkey(release, *login, *command)
        if "NOPERM" not in output:
            raise ScenarioFailed(f"{role} can run {command}: {output}")


def ask_valkey(release: Release, *arguments: str) -> str:
    """Return the output of valkey-cli in Valkey's pod."""
    return release.kube.run(VALKEY, "valkey-cli", *arguments, check=False).decode()


def check_budget(release: Release, report: Report) -> None:
    """Check that only one API pod may be evicted until another is ready."""
    with report.row("PodDisruptionBudget: one eviction at a time") as row:
        first, second, *_ = release.kube.list_ready_pods("api")
        if not release.kube.evict(first):
            raise ScenarioFailed("the first eviction was refused")
        if release.kube.evict(second):
            raise ScenarioFailed("the second eviction was allowed")
        release.kube.wait_until_settled()
        row.notes.append("the first pod was evicted, the eviction of the second was refused")


def check_targets(release: Release, report: Report) -> None:
    """Check that Prometheus scrapes every pod, first by ServiceMonitor, then by annotations."""
    for way, pool in MONITORS.items():
        with report.row(f"Prometheus scrapes every pod, by {way}") as row:
            try:
                release.kube.core.read_namespaced_service("prometheus", "monitoring")
            except ApiException:
                row.skipped = True
                row.notes.append("needs a Service prometheus in namespace monitoring")
                continue
            monitors: dict[str, Any] = {
                monitor: {"enabled": monitor == way} for monitor in MONITORS
            }
            release.upgrade({"metrics": monitors})
            prefix = pool.format(release.namespace)
            wait_for(lambda: _are_all_up(release, prefix), f"targets of {prefix}", 180)  # noqa: B023
            row.notes.append(f"{len(_list_pod_names(release))} pods up in {prefix}…")


def _list_pod_names(release: Release) -> set[str]:
    pods = release.kube.list_ready_pods("api") + release.kube.list_ready_pods("flusher")
    return {pod.metadata.name for pod in pods}


def _are_all_up(release: Release, pool: str) -> bool:
    """Return whether exactly the release's pods are up in a scrape pool."""
    path = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/targets"
    active = release.kube.get_json(path, state="active")["data"]["activeTargets"]
    up = {
        target["labels"]["pod"]
        for target in active
        if target["labels"].get("namespace") == release.namespace
        and target["scrapePool"].startswith(pool)
        and target["health"] == "up"
    }
    return _list_pod_names(release) == up


SCENARIOS = (
    start_partitions,
    check_network,
    check_ingress,
    check_rights,
    check_budget,
    check_targets,
)
