"""Check that retention deletes usages that are older than the setting, and no others.

A test cannot wait for days or set the machine's clock. So the release's processes first run with a
clock that is three days behind, from a module that Python loads at its start.
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
CLOCK_MAP: Json = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "clock"},
    "data": {"sitecustomize.py": CLOCK},
}
CLOCK_BEHIND: Json = {
    "extraEnv": [{"name": "PYTHONPATH", "value": "/clock"}],
    "extraVolumes": [{"name": "clock", "configMap": {"name": "clock"}}],
    "extraVolumeMounts": [{"name": "clock", "mountPath": "/clock"}],
}
CLOCK_CURRENT: Json = {name: [] for name in CLOCK_BEHIND}


def delete_old_usages(release: Release, report: Report) -> None:
    """Post usages three days ago and now, then set the retention to one day."""
    with report.row("retention deletes old usages, and no others") as row:
        release.kube.apply(CLOCK_MAP)
        release.install(
            merge_values(
                {**release.routing_values(), **SMALL}, {**CLOCK_BEHIND, "flusher": CLOCK_BEHIND}
            )
        )
        release.wait_until_routed()
        old_ids = post_old_usages(release)
        row.notes.append(f"days in the archive: {list_days(release)}")
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            release.upgrade({**CLOCK_CURRENT, "flusher": CLOCK_CURRENT})
            if read_status(release, min(old_ids)) != HTTPStatus.OK:
                raise ScenarioFailed(
                    "a usage of three days ago was deleted without a retention setting"
                )
            release.upgrade({"config": {"retentionDays": 1}})
            wait_for(
                lambda: read_status(release, min(old_ids)) != HTTPStatus.OK,
                "the oldest to be deleted",
            )
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        check_deleted(release, row, old_ids)
        require_none_failed(row.figures)


def post_old_usages(release: Release) -> set[int]:
    """Post and archive usages with the clock that is behind; return their ids."""
    with release.load(RATE) as load:
        time.sleep(2 * STEADY_SECONDS)
        require_none_failed(load.stop())
    release.audit()
    return list_ids(release)


def list_ids(release: Release) -> set[int]:
    """Return the ids of all answers."""
    return {entry for request in release.history.requests for entry in request.ids}


def list_days(release: Release) -> list[str]:
    """Return the days of the archive's segments."""
    find = ("find", pod_archive.FOLDER, "-name", "usages-*")
    names = release.kube.run(f"{NAME}-flusher-0", *find).decode().split()
    return sorted({name.split("/")[-2] for name in names})


def check_deleted(release: Release, row: Row, old_ids: set[int]) -> None:
    """Check that all old usages are deleted, and that all from some id on are kept.

    Raises:
        ScenarioFailed: An old usage is kept, or another one is deleted.
    """
    release.wait_until_flushed()
    archive = pod_archive.read(release.kube)
    pod_archive.verify(release.kube)
    verdict = check_history(release.history, archive)
    kept_ids = {line.id for line in archive.partitions[0].lines}
    deleted_ids = list_ids(release) - kept_ids
    statuses = [read_status(release, number) for number in (min(old_ids), max(kept_ids))]
    row.notes.append(
        f"{len(deleted_ids)} deleted, {len(old_ids)} of them three days old, {len(kept_ids)} kept;"
        f" days in the archive: {list_days(release)}; GET of a deleted usage"
        f" {statuses[0]}, of a kept one {statuses[1]}"
    )
    expected: dict[Any, int] = {Defect.MISSING: len(deleted_ids), Defect.HOLE: 1}
    if (
        dict(verdict.defects) != expected
        or not old_ids <= deleted_ids
        or max(deleted_ids) > min(kept_ids)
    ):
        raise ScenarioFailed(f"{row.notes[-1]}; {verdict}")
    if statuses != [HTTPStatus.GONE, HTTPStatus.OK]:
        raise ScenarioFailed(row.notes[-1])


def read_status(release: Release, number: int) -> int:
    """Return the status of a GET of an id."""
    return release.request(f"/api/usages/{number}").status
