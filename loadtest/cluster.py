"""A release on a cluster: reads its archive by `kubectl exec`, its pods by metrics-server."""

import json
import subprocess
from typing import Any

from loadtest.target import ARCHIVE, TIMEOUT_SECONDS, Sample, Target, Unreachable, Verified, verify

UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
COMPONENT, INSTANCE = "app.kubernetes.io/component", "app.kubernetes.io/instance"


def parse_quantity(text: str) -> float:
    """Read a quantity of Kubernetes, in cores or bytes."""
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)


class Cluster(Target):
    """A release behind an ingress. `kubectl` must find its cluster (KUBECONFIG)."""

    interval_seconds = 5.0
    """Each sample starts kubectl twice, which is a load in itself on a small machine."""

    def __init__(self, url: str, host: str, namespace: str, release: str) -> None:
        super().__init__(url, host)
        self.namespace = namespace
        self.release = release
        self._cpu_seconds: dict[str, float] = {}
        self._last: float | None = None

    def _kubectl(self, *arguments: str) -> dict[str, Any]:
        command = ["kubectl", "--namespace", self.namespace, *arguments]
        try:
            process = subprocess.run(
                command, check=True, capture_output=True, timeout=TIMEOUT_SECONDS
            )
        except FileNotFoundError:
            raise Unreachable("kubectl is not installed") from None
        except subprocess.CalledProcessError as error:
            raise Unreachable(f"{' '.join(command)}: {error.stderr.decode().strip()}") from None
        reply: dict[str, Any] = json.loads(process.stdout)
        return reply

    def _pods(self) -> list[dict[str, Any]]:
        selector = f"--selector={INSTANCE}={self.release}"
        pods: list[dict[str, Any]] = self._kubectl("get", "pods", selector, "--output=json")[
            "items"
        ]
        return [entry for entry in pods if COMPONENT in entry["metadata"]["labels"]]

    def _of(self, component: str) -> list[dict[str, Any]]:
        return [p for p in self._pods() if p["metadata"]["labels"][COMPONENT] == component]

    def verify_archive(self) -> Verified:
        """Verify the volume of each flusher in its pod."""
        pods = [entry["metadata"]["name"] for entry in self._of("flusher")]
        if not pods:
            raise Unreachable(f"no flusher of {self.release} in {self.namespace}")
        at = ["kubectl", "--namespace", self.namespace, "exec"]
        command = ["--", "busyapi", "archive", "verify", "--dir", ARCHIVE]
        # A volume has one partition, with the number of its pod.
        total = Verified()
        for pod in pods:
            only = ["--partition", pod.rpartition("-")[2]] if len(pods) > 1 else []
            total += verify([*at, pod, *command, *only])
        return total

    def sample(self, at: float) -> Sample:
        """Sample the pods. metrics-server has a rate of CPU; its integral is the CPU time."""
        path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{self.namespace}/pods"
        usage = {
            entry["metadata"]["name"]: entry["containers"]
            for entry in self._kubectl("get", "--raw", path)["items"]
        }
        names = {p["metadata"]["name"] for p in self._pods()} & usage.keys()
        elapsed = 0.0 if self._last is None else at - self._last
        for name in names:
            cores = sum(parse_quantity(entry["usage"]["cpu"]) for entry in usage[name])
            self._cpu_seconds[name] = self._cpu_seconds.get(name, 0.0) + cores * elapsed
        self._last = at
        resident = {
            name: int(sum(parse_quantity(entry["usage"]["memory"]) for entry in usage[name]))
            for name in sorted(names)
        }
        backlog = self.fetch_counts()["buffered"]
        return Sample(at, backlog, resident, dict(self._cpu_seconds), len(self._ready_apis()))

    def _ready_apis(self) -> list[str]:
        return [
            entry["metadata"]["name"]
            for entry in self._of("api")
            if any(
                c["type"] == "Ready" and c["status"] == "True"
                for c in entry["status"].get("conditions", [])
            )
        ]

    def about(self) -> dict[str, str]:
        """Return the URL, the release and its images."""
        images = {
            container["image"] for pod in self._pods() for container in pod["spec"]["containers"]
        }
        return {**super().about(), "release": self.release, "images": ", ".join(sorted(images))}
