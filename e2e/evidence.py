"""Save what explains a failed scenario: events, states and the ends of logs."""

from itertools import product
from pathlib import Path

from kubernetes.client import ApiException

from e2e.kube import Kube

LOG_LINES = 200


def collect(kube: Kube, folder: Path) -> None:
    """Write events, states and logs of the pods that still exist."""
    folder.mkdir(parents=True, exist_ok=True)
    events = kube.core.list_namespaced_event(kube.namespace).items
    lines = [
        f"{event.last_timestamp or event.event_time} {event.involved_object.name}"
        f" {event.reason}: {event.message}"
        for event in events
    ]
    (folder / "events.txt").write_text("\n".join(sorted(lines)) + "\n")
    for pod in kube.pods():
        name = pod.metadata.name
        (folder / f"{name}.status.txt").write_text(str(pod.status))
        for container, previous in product(pod.spec.containers, (False, True)):
            try:
                log = kube.core.read_namespaced_pod_log(
                    name,
                    kube.namespace,
                    container=container.name,
                    tail_lines=LOG_LINES,
                    previous=previous,
                )
            except ApiException:
                continue
            ended = ".previous" if previous else ""
            (folder / f"{name}.{container.name}{ended}.log").write_text(log)
