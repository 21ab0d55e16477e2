"""Retention deletes what is older than it is kept, and nothing else.

Days cannot be waited for, nor may the machine's clock be changed: the release's own processes run
with a clock three days behind at first, by a module that Python loads when it starts.
"""

import time
from http import HTTPStatus
from typing import Any

from e2e import pod_archive
from e2e.kube import Json, wait_for
from e2e.measure import Broken, none_failed
from e2e.release import NAME, Release, merged
from e2e.report import Report, Row
from e2e.scenarios.operations import RATE, SMALL, STEADY
from testkit.checker import Defect, check_history

DAYS = 3
CLOCK = f"""\
import time
behind = {DAYS} * 86400
now, now_ns, gmtime = time.time, time.time_ns, time.gmtime
time.time = lambda: now() - behind
time.time_ns = lambda: now_ns() - behind * 10**9
time.gmtime = lambda at=None: gmtime(at if at is not None else time.time())
"""
MAP: Json = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "clock"},
    "data": {"sitecustomize.py": CLOCK},
}
BEHIND: Json = {
    "extraEnv": [{"name": "PYTHONPATH", "value": "/clock"}],
    "extraVolumes": [{"name": "clock", "configMap": {"name": "clock"}}],
    "extraVolumeMounts": [{"name": "clock", "mountPath": "/clock"}],
}
PRESENT: Json = {name: [] for name in BEHIND}


def retain(site: Release, report: Report) -> None:
    """Usages of three days ago and of now; then they are kept for one day."""
    with report.row("retention deletes old usages, and no others") as row:
        site.kube.apply(MAP)
        site.install(merged({**site.routes(), **SMALL}, {**BEHIND, "flusher": BEHIND}))
        site.wait_routed()
        first = sent(site)
        row.notes.append(f"days in the archive: {days(site)}")
        with site.load(RATE) as load:
            time.sleep(STEADY)
            site.upgrade({**PRESENT, "flusher": PRESENT})
            if status(site, min(first)) != HTTPStatus.OK:
                raise Broken("a usage of three days ago is gone although all are kept")
            site.upgrade({"config": {"retentionDays": 1}})
            wait_for(lambda: status(site, min(first)) != HTTPStatus.OK, "the oldest to be deleted")
            time.sleep(STEADY)
            row.figures = load.stop()
        judge(site, row, first)
        none_failed(row.figures)


def sent(site: Release) -> set[int]:
    """Load, all of it archived by a clock that is behind; what ids were answered."""
    with site.load(RATE) as load:
        time.sleep(2 * STEADY)
        none_failed(load.stop())
    site.audit()
    return ids(site)


def ids(site: Release) -> set[int]:
    """All that were answered."""
    return {entry for request in site.history.requests for entry in request.ids}


def days(site: Release) -> list[str]:
    """The days that the archive has segments of."""
    find = ("find", pod_archive.FOLDER, "-name", "usages-*")
    names = site.kube.run(f"{NAME}-flusher-0", *find).decode().split()
    return sorted({name.split("/")[-2] for name in names})


def judge(site: Release, row: Row, first: set[int]) -> None:
    """All of the old ones are gone, and everything from one id on is there.

    Raises:
        Broken: something else is the case.
    """
    site.wait_flushed()
    archive = pod_archive.read(site.kube)
    pod_archive.verify(site.kube)
    verdict = check_history(site.history, archive)
    there = {line.id for line in archive.partitions[0].lines}
    gone = ids(site) - there
    row.notes.append(
        f"{len(gone)} usages deleted, {len(first)} of them sent before, {len(there)} kept; days in"
        f" the archive: {days(site)}; GET of a deleted one {status(site, min(first))},"
        f" of one that is kept {status(site, max(there))}"
    )
    known: dict[Any, int] = {Defect.MISSING: len(gone), Defect.HOLE: 1}
    if dict(verdict.defects) != known or not first <= gone or max(gone) > min(there):
        raise Broken(f"{row.notes[-1]}; {verdict}")
    if (status(site, min(first)), status(site, max(there))) != (HTTPStatus.GONE, HTTPStatus.OK):
        raise Broken(row.notes[-1])


def status(site: Release, number: int) -> int:
    """Return the status of a GET of an id."""
    return site.ask(f"/api/usages/{number}").status
