"""Samples of a run, one per second, as CSV and as a picture."""

import csv
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
from perf.sampler import Sampler
from testkit.history import Outcome

INTERVAL_SECONDS = 1.0


class Point(NamedTuple):
    """The sample of one second."""

    second: float
    offered: float
    """Requests a second that were due."""
    answered: float
    """With 201."""
    p99_ms: float
    desired: int
    """API pods that the autoscaler asked for."""
    ready: int
    backlog: int
    """Usages issued and not archived."""
    archived: int


class Recorder(Sampler[Point]):
    """Samples a load and a release every second, within a `with`."""

    def __init__(self, release: Release, load: OpenLoop) -> None:
        super().__init__(self._measure, INTERVAL_SECONDS)
        self._release = release
        self._load = load
        self._at, self._offered, self._seen = time.monotonic(), load.offered, len(load.samples)

    @property
    def points(self) -> list[Point]:
        """Return the samples without the first and the last: their time is too short for a rate."""
        return self.samples[1:-1]

    def _measure(self) -> Point:
        desired, ready, backlog, archived = self._read_cluster()
        now, sent, samples = time.monotonic(), self._load.offered, self._load.samples[self._seen :]
        good = [sample for sample in samples if sample.outcome is Outcome.OK]
        seconds = now - self._at
        latencies = [sample.answered - sample.planned_at for sample in good]
        point = Point(
            second=round(now - self._load.began, 1),
            offered=round((sent - self._offered) / seconds, 1),
            answered=round(len(good) / seconds, 1),
            p99_ms=round(quantile(latencies, 0.99) * 1000, 1),
            desired=desired,
            ready=ready,
            backlog=backlog,
            archived=archived,
        )
        self._at, self._offered, self._seen = now, sent, self._seen + len(samples)
        return point

    def _read_cluster(self) -> tuple[int, int, int, int]:
        """Return the state of the cluster, or the last one if it does not answer."""
        try:
            status = self._release.kube.apps.read_namespaced_deployment(
                NAME, self._release.namespace
            )
            scrape = self._release.kube.get(f"{NAME}-flusher-0", pod_archive.PORT, "/metrics")
        except (ApiException, HTTPError):
            last = self.samples[-1] if self.samples else Point(0, 0, 0, 0, 0, 0, 0, 0)
            return last.desired, last.ready, last.backlog, last.archived
        issued, archived = (
            int(pod_archive.read_gauge(scrape, f"busyapi_{entry}_seq"))
            for entry in ("issued", "archived")
        )
        ready = status.status.ready_replicas or 0
        return status.spec.replicas or 0, ready, max(0, issued - archived), archived


def write(points: list[Point], title: str, path: Path) -> None:
    """Write `path`.csv and `path`.png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(Point._fields)
        table.writerows(points)
    _picture(points, title, path.with_suffix(".png"))


def _picture(points: list[Point], title: str, path: Path) -> None:
    mpl.use("Agg")
    figure = Figure(figsize=(9, 9), layout="constrained")
    panels = figure.subplots(5, 1, sharex=True)
    figure.suptitle(title)
    seconds = [point.second for point in points]

    def line(panel: int, label: str, value: Callable[[Point], float], style: str = "-") -> None:
        panels[panel].plot(seconds, [value(point) for point in points], style, label=label)

    line(0, "offered", lambda point: point.offered, "--")
    line(0, "answered with 201", lambda point: point.answered)
    line(1, "pods desired", lambda point: point.desired, "--")
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
