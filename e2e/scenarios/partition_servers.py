"""Partitions on several external servers: which server has which, and a server that is down."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kubernetes.client import ApiException

from e2e import servers
from e2e.kube import ExecFailed, Kube, wait_for
from e2e.measure import ScenarioFailed
from e2e.release import NAME, Release
from e2e.report import Row
from e2e.scenarios.external import run_cli

API_PORT, METRICS_PORT = 3000, 9090


@contextmanager
def keep_down(release: Release, row: Row, pod: str, partitions: set[int]) -> Iterator[float]:
    """Kill a server's pod, and keep the next one from starting its server until the end.

    The value is the time of the kill. Within, each API pod knows that its partitions are down.
    """
    kube = release.kube
    kube.run(pod, "touch", servers.HOLD, container=servers.SERVER)
    killed = time.monotonic()
    kube.delete_pod(pod, grace=0)
    try:
        wait_until_without(release, row, partitions)
        yield killed
    finally:
        wait_for(lambda: allow_start(kube, pod), f"{pod} to start", 60)
    row.notes.append(f"{pod} was down for {time.monotonic() - killed:.0f} s")


def wait_until_without(release: Release, row: Row, partitions: set[int]) -> None:
    """Wait until no API pod can post to these partitions.

    Raises:
        ScenarioFailed: One is not ready, or says something else.
    """
    began = time.monotonic()
    wait_for(lambda: is_without(release, partitions), f"the loss of {partitions}", 30)
    seconds = time.monotonic() - began
    require_described(release.kube, partitions)
    row.notes.append(f"after {seconds:.1f} s each API pod was without {sorted(partitions)}")


def require_described(kube: Kube, partitions: set[int]) -> None:
    """Check that each API pod is ready, and says which partitions get no usages.

    Raises:
        ScenarioFailed: One says something else.
    """
    numbers = ", ".join(map(str, sorted(partitions)))
    for api in kube.list_ready_pods("api"):
        text = kube.get(api.metadata.name, API_PORT, "/readyz")
        if f"partition: ok, without {numbers} (" not in text:
            raise ScenarioFailed(f"{api.metadata.name} says {text}")


def allow_start(kube: Kube, pod: str) -> bool:
    """Let a server start; return whether its pod runs."""
    try:
        kube.run(pod, "rm", "-f", servers.HOLD, container=servers.SERVER)
    except (ApiException, ExecFailed):
        return False
    return True


def wait_until_complete(release: Release, row: Row) -> None:
    """Wait until all pods are ready, and each API process has all partitions."""
    began = time.monotonic()
    wait_for(lambda: not any(read_missing(release)), "all partitions", 60)
    row.notes.append(f"all partitions after {time.monotonic() - began:.1f} s")
    release.kube.wait_until_settled()


def is_without(release: Release, partitions: set[int]) -> bool:
    """Return whether all API pods that are ready cannot post to these partitions only."""
    missing = read_missing(release)
    return bool(missing) and all(numbers == partitions for numbers in missing)


def read_missing(release: Release) -> list[set[int]]:
    """Return, for each API pod that is ready, the partitions to which it cannot post."""
    pattern = re.compile(r'^busyapi_committers_ready\{partition="(\d+)"\} 0', re.MULTILINE)
    names = [pod.metadata.name for pod in release.kube.list_ready_pods("api")]
    texts = [release.kube.get(name, METRICS_PORT, "/metrics") for name in names]
    return [set(map(int, pattern.findall(text))) for text in texts]


def read_log(kube: Kube, partition: int) -> str:
    """Return the log of a flusher, if it runs."""
    try:
        return str(kube.core.read_namespaced_pod_log(f"{NAME}-flusher-{partition}", kube.namespace))
    except ApiException:
        return ""


def require_places(kube: Kube, pods: Sequence[str], *expected: set[int]) -> None:
    """Check which partitions the servers have.

    Raises:
        ScenarioFailed: A server lacks one, or has one of another server.
    """
    keys = [run_cli(kube, pod, "KEYS", "*:seq") for pod in pods]
    places = [{int(number) for number in re.findall(r"\{(\d+)\}:seq", text)} for text in keys]
    if places != [*expected]:
        raise ScenarioFailed(f"the servers have the partitions {places}")
