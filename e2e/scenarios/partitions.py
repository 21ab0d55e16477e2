"""Change the number of partitions under load: four, eight, and four again."""

import time

from e2e import pod_archive
from e2e.kube import wait_for
from e2e.measure import ScenarioFailed, require_none_failed, require_nothing_lost
from e2e.release import NAME, Release
from e2e.report import Report, Row
from e2e.scenarios.valkey_ha import SMALL
from testkit.checker import check_history

RATE = 250.0
"""So that more than 10,000 posts meet each change."""
STEADY_SECONDS = 8.0
FEW, MANY = 4, 8
LOOKUPS = 200


def install_few(release: Release, report: Report) -> None:
    """Install a few partitions, and post."""
    with report.row(f"{FEW} partitions: installed") as row:
        release.install({**release.routing_values(), **SMALL, "config": {"partitions": FEW}})
        release.wait_until_routed()
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        check_all(release, row)


def grow(release: Release, report: Report) -> None:
    """Add partitions: `helm upgrade --wait` ends, and no post fails."""
    change(release, report, MANY)
    for number in range(MANY):
        strides = read_strides(release, number)
        if not strides.endswith(f":{MANY}"):
            raise ScenarioFailed(f"partition {number} has the strides {strides!r}")


def shrink(release: Release, report: Report) -> None:
    """Remove them again: their flushers stay, and serve lookups."""
    change(release, report, FEW)
    pods = len(release.kube.pods("flusher"))
    if pods != MANY:
        raise ScenarioFailed(f"{pods} flushers are left of {MANY}")


def change(release: Release, report: Report, partitions: int) -> None:
    """Change the number of partitions under load."""
    with report.row(f"{partitions} partitions, by helm upgrade") as row:
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            began = time.monotonic()
            release.upgrade({"config": {"partitions": partitions}})
            row.notes.append(f"the upgrade took {time.monotonic() - began:.0f} s")
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        check_all(release, row)


def check_all(release: Release, row: Row) -> None:
    """Check that no post failed, that each is archived once, and that lookups find it.

    Raises:
        ScenarioFailed: One of this does not hold, or ids were skipped.
    """
    assert row.figures
    row.notes.append(f"{row.figures.silence:.1f} s without a 201")
    check_archive(release, row)
    require_none_failed(row.figures)


def check_archive(release: Release, row: Row, *, jumped: bool = False) -> None:
    """Check that each usage is archived once, and that lookups find it.

    Raises:
        ScenarioFailed: One of this does not hold, or ids were skipped and `jumped` is not set.
    """
    wait_for(lambda: is_flushed(release), "the flushers", 90)
    archive = release.distinguish_examples(pod_archive.read(release.kube))
    row.verdict = check_history(release.history, archive, partitions=release.partitions)
    require_nothing_lost(row.verdict)
    # A new partition begins behind a gap.
    begins = sum(part.strides[0][0] - 1 for part in archive.partitions.values() if part.strides)
    if (row.verdict.skipped != begins) is not jumped:
        raise ScenarioFailed(f"{row.verdict.skipped} ids skipped, {begins} before the begin")
    lines = {number: len(part.lines) for number, part in archive.partitions.items()}
    row.notes.append(f"archived by partition: {lines}")
    ids = [number for request in release.history.requests for number in request.ids]
    for number in ids[:: max(1, len(ids) // LOOKUPS)]:
        answer = release.request(f"/api/usages/{number}")
        if answer.status != 200:
            raise ScenarioFailed(f"the lookup of {number}: {answer}")
    pod_archive.verify(release.kube)


def is_flushed(release: Release) -> bool:
    """Return whether Redis has no usage that is not archived."""
    answer = release.request("/api/usages/count")
    return answer.status == 200 and answer.json()["buffered"] == 0


def read_strides(release: Release, partition: int) -> str:
    """Return the strides in a partition's record."""
    path = f"{pod_archive.FOLDER}/p{partition:02d}/partition.json"
    line = release.kube.run(f"{NAME}-flusher-{partition}", "grep", "strides", path)
    return line.decode().split('"')[3]


SCENARIOS = (install_few, grow, shrink)
