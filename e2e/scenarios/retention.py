"""Retention deletes usages that are older than the setting, and no others.

A test cannot wait for days or set the machine's clock. So the release's processes first run with a
clock three days behind, by a module that Python loads when it starts.
"""

import time
from http import HTTPStatus
from typing import Any

from e2e import pod_archive
from e2e.kube import Json, wait_for
from e2e.measure import ScenarioFailed, require_none_failed
from e2e.release import NAME, Release, merge_values
from e2e.report import Report, Row
from e2e.scenarios.operations import RATE, SMALL, STEADY_SECONDS
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
    """Post usages three days ago and now, then keep them for one day."""
    with report.row("retention deletes old usages, and no others") as row:
        site.kube.apply(MAP)
        site.install(
            merge_values({**site.routing_values(), **SMALL}, {**BEHIND, "flusher": BEHIND})
        )
        site.wait_routed()
        first = post_old_usages(site)
        row.notes.append(f"days in the archive: {list_days(site)}")
        with site.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            site.upgrade({**PRESENT, "flusher": PRESENT})
            if read_status(site, min(first)) != HTTPStatus.OK:
                raise ScenarioFailed("a usage of three days ago was deleted although all are kept")
            site.upgrade({"config": {"retentionDays": 1}})
            wait_for(
                lambda: read_status(site, min(first)) != HTTPStatus.OK, "the oldest to be deleted"
            )
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        check_deleted(site, row, first)
        require_none_failed(row.figures)


def post_old_usages(site: Release) -> set[int]:
    """Post and archive usages with the clock that is behind; return their ids."""
    with site.load(RATE) as load:
        time.sleep(2 * STEADY_SECONDS)
        require_none_failed(load.stop())
    site.audit()
    return list_ids(site)


def list_ids(site: Release) -> set[int]:
    """Return the ids of all answers."""
    return {entry for request in site.history.requests for entry in request.ids}


def list_days(site: Release) -> list[str]:
    """Return the days of the archive's segments."""
    find = ("find", pod_archive.FOLDER, "-name", "usages-*")
    names = site.kube.run(f"{NAME}-flusher-0", *find).decode().split()
    return sorted({name.split("/")[-2] for name in names})


def check_deleted(site: Release, row: Row, first: set[int]) -> None:
    """Check that all old usages are deleted, and that from one id on all are kept.

    Raises:
        ScenarioFailed: An old usage is kept, or another one is deleted.
    """
    site.wait_flushed()
    archive = pod_archive.read(site.kube)
    pod_archive.verify(site.kube)
    verdict = check_history(site.history, archive)
    kept_ids = {line.id for line in archive.partitions[0].lines}
    deleted_ids = list_ids(site) - kept_ids
    row.notes.append(
        f"{len(deleted_ids)} deleted, {len(first)} of them sent before, {len(kept_ids)} kept;"
        f" days in the archive: {list_days(site)}; GET of a deleted usage"
        f" {read_status(site, min(first))}, of a kept one {read_status(site, max(kept_ids))}"
    )
    expected: dict[Any, int] = {Defect.MISSING: len(deleted_ids), Defect.HOLE: 1}
    if (
        dict(verdict.defects) != expected
        or not first <= deleted_ids
        or max(deleted_ids) > min(kept_ids)
    ):
        raise ScenarioFailed(f"{row.notes[-1]}; {verdict}")
    if (read_status(site, min(first)), read_status(site, max(kept_ids))) != (
        HTTPStatus.GONE,
        HTTPStatus.OK,
    ):
        raise ScenarioFailed(row.notes[-1])


def read_status(site: Release, number: int) -> int:
    """Return the status of a GET of an id."""
    return site.request(f"/api/usages/{number}").status
