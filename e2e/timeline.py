"""What a run looks like second by second, as CSV and as a picture."""

import csv
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from kubernetes.client import ApiException
from matplotlib.figure import Figure
from urllib3.exceptions import HTTPError

from e2e import pod_archive
from e2e.measure import quantile
from e2e.openloop import OpenLoop
from e2e.release import NAME, Release
from testkit.child_process import Lifetime
from testkit.history import Outcome

EVERY = 1.0


class Point(NamedTuple):
    """One second."""

    second: float
    offered: float
    """Requests a second that the load meant to send."""
    answered: float
    """With 201."""
    p99_ms: float
    desired: int
    """API pods that the autoscaler asked for."""
    ready: int
    backlog: int
    """Usages issued and not archived."""
    archived: int


class Recorder(Lifetime):
    """Looks at a load and a release every second, within a `with`."""

    def __init__(self, site: Release, load: OpenLoop) -> None:
        self.points: list[Point] = []
        self._site = site
        self._load = load
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timeline", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(60)

    def _run(self) -> None:
        at, offered, seen = time.monotonic(), self._load.offered, len(self._load.samples)
        while not self._stopping.wait(EVERY):
            desired, ready, backlog, archived = self._look()
            now, sent, samples = time.monotonic(), self._load.offered, self._load.samples[seen:]
            good = [sample for sample in samples if sample.outcome is Outcome.OK]
            self.points.append(
                Point(
                    second=round(now - self._load.began, 1),
                    offered=round((sent - offered) / (now - at), 1),
                    answered=round(len(good) / (now - at), 1),
                    p99_ms=round(quantile([e.answered - e.meant for e in good], 0.99) * 1000, 1),
                    desired=desired,
                    ready=ready,
                    backlog=backlog,
                    archived=archived,
                )
            )
            at, offered, seen = now, sent, seen + len(samples)

    def _look(self) -> tuple[int, int, int, int]:
        """Return the state of the cluster, or the last one if it does not answer."""
        try:
            status = self._site.kube.apps.read_namespaced_deployment(NAME, self._site.namespace)
            scrape = self._site.kube.ask(f"{NAME}-flusher-0", pod_archive.PORT, "/metrics")
        except (ApiException, HTTPError):
            last = self.points[-1] if self.points else Point(0, 0, 0, 0, 0, 0, 0, 0)
            return last.desired, last.ready, last.backlog, last.archived
        issued, archived = (
            int(pod_archive.gauge(scrape, f"busyapi_{entry}_seq"))
            for entry in ("issued", "archived")
        )
        ready = status.status.ready_replicas or 0
        return status.spec.replicas or 0, ready, max(0, issued - archived), archived


def write(points: list[Point], title: str, path: Path) -> None:
    """Write `path`.csv and `path`.png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow("wanted" if name == "desired" else name for name in Point._fields)
        table.writerows(points)
    _picture(points, title, path.with_suffix(".png"))


def _picture(points: list[Point], title: str, path: Path) -> None:
    mpl.use("Agg")
    figure = Figure(figsize=(9, 9), layout="constrained")
    panels = figure.subplots(5, 1, sharex=True)
    figure.suptitle(title)
    seconds = [point.second for point in points]

    def line(panel: int, label: str, of: Callable[[Point], float], style: str = "-") -> None:
        panels[panel].plot(seconds, [of(point) for point in points], style, label=label)

    line(0, "offered", lambda point: point.offered, "--")
    line(0, "answered with 201", lambda point: point.answered)
    line(1, "pods wanted", lambda point: point.desired, "--")
    line(1, "pods ready", lambda point: point.ready)
    line(2, "p99 ms", lambda point: point.p99_ms)
    line(3, "backlog, usages", lambda point: point.backlog)
    line(4, "archived, usages", lambda point: point.archived)
    names = ("requests a second", "API pods", "ms", "usages", "usages")
    for panel, name in zip(panels, names, strict=True):
        panel.set_ylabel(name)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.legend(loc="upper right")
    panels[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=80)
