"""Four partitions; limits of network, rights and evictions; Prometheus' targets."""

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
STRANGER = "stranger"
VALKEY = f"{NAME}-valkey-0"
PORTS = {
    "api": (NAME, 80),
    "api metrics": ("", 9090),
    "flusher": (f"{NAME}-flusher-0.{NAME}-flusher", 9100),
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


def start(site: Release, report: Report) -> None:
    """Run four partitions, which archive to four volumes."""
    with report.row("four partitions, four volumes") as row:
        monitor = {"serviceMonitor": {"enabled": True, "interval": "5s"}}
        small = {"persistence": {"size": "1Gi"}}
        site.install(
            {
                **site.routing_values(),
                "config": {"partitions": PARTITIONS},
                "flusher": {**small, "resources": {"requests": {"cpu": "50m"}}},
                "metrics": monitor,
            }
        )
        site.wait_routed()
        with site.load(RATE) as load:
            time.sleep(8)
            row.figures = load.stop()
        row.verdict = site.audit()
        require_none_failed(row.figures)
        lines = {n: len(part.lines) for n, part in pod_archive.read(site.kube).partitions.items()}
        claims = site.kube.core.list_namespaced_persistent_volume_claim(site.namespace).items
        names = {claim.metadata.name for claim in claims if claim.status.phase == "Bound"}
        if not {f"archive-{NAME}-flusher-{n}" for n in range(PARTITIONS)} <= names:
            raise ScenarioFailed(f"bound claims: {names}")
        if len(lines) != PARTITIONS or not all(lines.values()):
            raise ScenarioFailed(f"archived by partition: {lines}")
        row.notes.append(f"archived by partition: {lines}")


def network(site: Release, report: Report) -> None:
    """Check that another pod reaches only the API, and without policies everything.

    By default, only Valkey has a policy. It is switched off once, to show that the probe works.
    """
    with report.row("NetworkPolicy: a stranger reaches only the API") as row:
        site.kube.apply(make_stranger())
        wait_for(lambda: _running(site.kube, STRANGER), "the stranger to run", 60)
        wait_for(
            lambda: list_reached_ports(site) == set(PORTS) - {"valkey"}, "the default policy", 30
        )
        site.upgrade({"networkPolicy": {"valkey": {"enabled": False}}})
        wait_for(
            lambda: list_reached_ports(site) == set(PORTS), "the probe to reach everything", 30
        )
        before = list_reached_ports(site)
        site.upgrade({"networkPolicy": {"enabled": True, "valkey": {"enabled": True}}})
        wait_for(lambda: list_reached_ports(site) == OPEN_TO_ALL, "the policy to hold", 30)
        with site.load(RATE) as load:
            time.sleep(3)
            site.helm_test()
            row.figures = load.stop()
        row.verdict = site.audit()
        require_none_failed(row.figures)
        row.notes.append(f"before: {sorted(before)}; with it: {sorted(list_reached_ports(site))}")


def make_stranger() -> dict[str, Any]:
    """Return a pod that does not belong to the release."""
    command = ["python3", "-c", "import signal; signal.pause()"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": STRANGER},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "enableServiceLinks": False,
            "containers": [
                {
                    "name": STRANGER,
                    "image": default_image(),
                    "imagePullPolicy": "IfNotPresent",
                    "command": command,
                    "securityContext": SAFE,
                }
            ],
        },
    }


def _running(kube: Kube, name: str) -> bool:
    return bool(kube.core.read_namespaced_pod(name, kube.namespace).status.phase == "Running")


def list_reached_ports(site: Release) -> set[str]:
    """Return the ports that the stranger reaches."""
    address = site.kube.list_ready_pods("api")[0].status.pod_ip
    ports = {name: (host or address, port) for name, (host, port) in PORTS.items()}
    output = site.kube.run(STRANGER, "python3", "-c", PROBE, json.dumps(ports))
    return set(output.decode().splitlines())


def outside(site: Release, report: Report) -> None:
    """Check that neither metrics nor probes are available through the ingress controller."""
    with report.row("no metrics and no probes through Ingress and Gateway") as row:
        for host in site.hosts.values():
            site.wait_routed(host)
            for path in HIDDEN:
                if (status := site.request(path, host=host).status) != 404:
                    raise ScenarioFailed(f"{host}{path} answers {status}")
            for path in ("/", "/openapi.json", "/api/usages/count"):
                if (status := site.request(path, host=host).status) != 200:
                    raise ScenarioFailed(f"{host}{path} answers {status}")
        row.notes.append(f"404 for {', '.join(HIDDEN)} by {' and '.join(site.hosts)}")


def rights(site: Release, report: Report) -> None:
    """Check that passwords survive upgrades, and that each role has only its rights in Valkey."""
    with report.row("Secret, Valkey's users, ServiceAccount") as row:
        secret = _secret(site)
        site.upgrade({"podAnnotations": {"busyapi.test/again": "yes"}})
        if _secret(site) != secret:
            raise ScenarioFailed("an upgrade changed the passwords")
        for role in ("api", "flusher"):
            password = b64decode(secret[f"{role}-password"]).decode()
            check_refusals(site, role, password)
        output = ask_valkey(site, "PING")
        if "NOAUTH" not in output:
            raise ScenarioFailed(f"without a password Valkey says {output}")
        for pod in site.kube.pods("api") + site.kube.pods("flusher") + site.kube.pods("valkey"):
            mounts = [m.mount_path for c in pod.spec.containers for m in c.volume_mounts]
            if any("serviceaccount" in mount for mount in mounts):
                raise ScenarioFailed(f"{pod.metadata.name} has a token of the API server: {mounts}")
        row.notes.append("FLUSHALL, KEYS, CONFIG SET, ACL LIST and other keys refused to both")


def _secret(site: Release) -> dict[str, str]:
    return dict(site.kube.core.read_namespaced_secret(f"{NAME}-valkey", site.namespace).data)


def check_refusals(site: Release, role: str, password: str) -> None:
    """Check that Valkey refuses a role every command that it does not need."""
    login = ("--user", role, "--pass", password, "--no-auth-warning")
    if not ask_valkey(site, *login, "GET", "busyapi:{0}:seq").strip().isdigit():
        raise ScenarioFailed(f"{role} may not read its own keys")
    for command in (
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "SET", "appendonly", "no"),
        ("ACL", "LIST"),
        ("GET", "another-installation"),
    ):
        output = ask_valkey(site, *login, *command)
        if "NOPERM" not in output:
            raise ScenarioFailed(f"{role} may {command}: {output}")


def ask_valkey(site: Release, *arguments: str) -> str:
    """Return the output of valkey-cli in Valkey's pod."""
    return site.kube.run(VALKEY, "valkey-cli", *arguments, check=False).decode()


def budget(site: Release, report: Report) -> None:
    """Check that only one API pod may be evicted until another is ready."""
    with report.row("PodDisruptionBudget: one at a time") as row:
        first, second, *_ = site.kube.list_ready_pods("api")
        if not site.kube.evict(first):
            raise ScenarioFailed("the first eviction was refused")
        if site.kube.evict(second):
            raise ScenarioFailed("the second eviction was allowed")
        site.kube.wait_settled()
        row.notes.append("the first was evicted, the second refused")


def targets(site: Release, report: Report) -> None:
    """Check that every pod is up in Prometheus, by ServiceMonitor and then by annotation."""
    for way, pool in MONITORS.items():
        with report.row(f"Prometheus has every pod up, by {way}") as row:
            try:
                site.kube.core.read_namespaced_service("prometheus", "monitoring")
            except ApiException:
                row.left_out = True
                row.notes.append("needs a Service prometheus in namespace monitoring")
                continue
            off: dict[str, Any] = {monitor: {"enabled": monitor == way} for monitor in MONITORS}
            site.upgrade({"metrics": off})
            prefix = pool.format(site.namespace)
            wait_for(lambda: _all_up(site, prefix), f"targets of {prefix}", 180)  # noqa: B023
            row.notes.append(f"{len(_pods(site))} pods up in {prefix}…")


def _pods(site: Release) -> set[str]:
    pods = site.kube.list_ready_pods("api") + site.kube.list_ready_pods("flusher")
    return {pod.metadata.name for pod in pods}


def _all_up(site: Release, pool: str) -> bool:
    """Return whether exactly the release's pods are up in a scrape pool."""
    path = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/targets"
    active = site.kube.get_json(path, state="active")["data"]["activeTargets"]
    up = {
        target["labels"]["pod"]
        for target in active
        if target["labels"].get("namespace") == site.namespace
        and target["scrapePool"].startswith(pool)
        and target["health"] == "up"
    }
    return _pods(site) == up


SCENARIOS = (start, network, outside, rights, budget, targets)
