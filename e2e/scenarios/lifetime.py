"""Upgrade from an earlier release, fill a small archive volume, uninstall and install again.

If there is a chart of an earlier release, the scenario installs it, upgrades, rolls back and
upgrades again: once with the archive in the format of both, and once by a downgrade of the archive
from the newest format. Each release continues with the archive and the Redis data of the other.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from e2e import environment, images, pod_archive
from e2e.kube import wait_for
from e2e.measure import Figures, ScenarioFailed, require_none_failed
from e2e.pages import run_blocks
from e2e.release import CHART, HELM_SECONDS, NAME, Release
from e2e.report import Report, Row
from e2e.scenarios.faults import describe_failures, require_recovery
from e2e.shell import open_shell
from e2e.target import ROOT
from testkit.docs.runbook_shell import Shell

RATE = 60.0
RELEASED = ROOT / "tests" / "chart" / "released"
FLUSHER = f"{NAME}-flusher-0"
FILL = "/var/lib/busyapi/fill"
# Small writes use the space that large ones cannot. The next round uses what the file system frees.
FILLING = f"""
for round in 1 2 3 4 5; do
  cat /dev/zero >> {FILL}
  dd if=/dev/zero of={FILL} bs=1k oflag=append conv=notrunc
  sync {FILL}
done 2> /dev/null
"""
MIN_BACKLOG = 500
"""Usages in the backlog. So many show that the flusher cannot write."""
SMALL = {"flusher": {"persistence": {"size": "64Mi"}}, "valkey": {"persistence": {"size": "512Mi"}}}


def find_previous_chart() -> Path | None:
    """Return the newest released chart before this one."""
    this = _parse_version(yaml.safe_load((CHART / "Chart.yaml").read_text())["version"])
    charts = {_parse_version(path.stem): path for path in RELEASED.glob("busyapi-*.tgz")}
    return max(((v, path) for v, path in charts.items() if v < this), default=(None, None))[1]


def _parse_version(text: str) -> tuple[int, ...]:
    return tuple(int(match) for match in re.findall(r"\d+", text))


def upgrade(release: Release, report: Report) -> None:
    """Upgrade from the previous release, roll back to it and upgrade again, twice, under load."""
    values = {**release.routing_values(), **SMALL}
    del values["tests"]  # the previous chart has no such value
    chart = find_previous_chart()
    with report.row("upgrade from the previous release's chart") as row:
        obstacle = find_obstacle(release, chart)
        if chart is None or obstacle:
            row.skipped = True
            row.notes.append(obstacle)
            release.install(values)
            release.wait_until_routed()
            return
        release.install(values, chart)
        release.wait_until_routed()
        # 0.2.0 must be able to read the archive after the rollback.
        keep_format = {"config": {"archiveFormat": 1}}
        change_under_load(release, row, lambda: release.upgrade(keep_format))
        row.notes.append(f"from {chart.name}")
    with report.row("rollback to the previous release") as row:
        change_under_load(release, row, lambda: roll_back(release))
    newest_format = {"config": {"archiveFormat": 2}}
    with report.row("upgrade to this release again") as row:
        change_under_load(release, row, lambda: release.upgrade(newest_format))
    with (
        report.row("archive upgraded, downgraded, and rollback") as row,
        open_shell(release) as bash,
    ):
        change_under_load(release, row, lambda: go_back(release, bash))
    with report.row("upgrade to this release's archive format") as row:
        change_under_load(release, row, lambda: release.upgrade(newest_format))


def go_back(release: Release, bash: Shell) -> None:
    """Rewrite segments in the newest format, then all in the previous one, and roll back."""
    run_blocks(bash, "archive-upgrade")
    run_blocks(bash, "archive-downgrade")
    roll_back(release)


def roll_back(release: Release) -> None:
    """Run `helm rollback --wait`."""
    release.helm.rollback(NAME, wait="watcher", timeout=HELM_SECONDS)
    release.kube.wait_until_settled()


def change_under_load(release: Release, row: Row, change: Callable[[], None]) -> None:
    """Change the release under a load of every kind of post, and audit all posts so far."""
    (valkey,) = release.kube.pods("valkey")
    with release.load(RATE, mixed=True) as load:
        time.sleep(3)
        change()
        row.figures = load.stop()
    row.verdict = release.audit()
    judge_upgrade(
        row, row.figures, rolled=release.kube.pods("valkey")[0].metadata.uid != valkey.metadata.uid
    )


def find_obstacle(release: Release, chart: Path | None) -> str:
    """Try to provide the previous release; return what is missing for the upgrade."""
    if chart is None:
        return "this is the first release: there is no earlier one"
    tag = environment.name_image(chart.stem.removeprefix("busyapi-"))
    if (
        not release.target.load_command
        or release.kube.has_image(tag)
        or images.load_release(release.target, chart, tag)
    ):
        return ""
    return f"no {tag} on the cluster, and no history in this clone to build it from"


def judge_upgrade(row: Row, figures: Figures, *, rolled: bool) -> None:
    """Check that no request failed. If the upgrade replaced the only Valkey, some may fail."""
    if not rolled:
        require_none_failed(figures)
        return
    row.notes += ["Valkey was replaced, as this upgrade requires", *describe_failures(figures)]
    require_recovery(figures)


def fill_volume(release: Release, report: Report) -> None:
    """Fill the archive's volume. Usages wait in Valkey, and no request fails."""
    with report.row("archive volume filled, then freed") as row:
        with release.load(RATE) as load:
            time.sleep(3)
            release.kube.run(FLUSHER, "sh", "-c", FILLING, check=False)
            wait_for(
                lambda: pod_archive.count_backlog(release.kube) >= MIN_BACKLOG,
                f"a backlog of {MIN_BACKLOG}",
                60,
            )
            errors = read_archive_errors(release)
            row.notes.append(
                f"{pod_archive.count_backlog(release.kube)} waited; the flusher's errors: {errors}"
            )
            release.kube.run(FLUSHER, "rm", FILL)
            wait_for(
                lambda: pod_archive.count_backlog(release.kube) < MIN_BACKLOG / 5,
                "the flusher to continue",
                60,
            )
            row.figures = load.stop()
        row.verdict = release.audit()
        require_none_failed(row.figures)


def read_archive_errors(release: Release) -> str:
    """Return the archive errors in the flusher's metrics.

    Raises:
        ScenarioFailed: there are none.
    """
    scrape = release.kube.get(FLUSHER, pod_archive.PORT, "/metrics")
    lines = [e for e in scrape.splitlines() if e.startswith("busyapi_archive_errors_total{")]
    errors = [line for line in lines if float(line.split()[-1])]
    if not errors:
        raise ScenarioFailed(f"a full volume, and no busyapi_archive_errors_total: {lines}")
    return ", ".join(errors)


def reinstall(release: Release, report: Report) -> None:
    """Uninstall and install again. The volumes are kept, and ids continue."""
    with report.row("uninstall keeps the volumes, the next install uses them") as row:
        last = release.post_example()
        release.wait_until_flushed()
        release.helm.uninstall(NAME, wait="watcher", timeout=180)
        wait_for(lambda: not release.kube.pods(), "the pods to end", 120)
        claims = list_claims(release)
        if claims != {f"archive-{FLUSHER}", f"data-{NAME}-valkey-0"}:
            raise ScenarioFailed(f"claims after uninstall: {claims}")
        release.install(release.values)
        release.wait_until_routed()
        first = release.post_example()
        row.verdict = release.audit()
        if first != last + 1 or row.verdict.skipped:
            raise ScenarioFailed(
                f"ids continued with {first} after {last}; {row.verdict.skipped} skipped"
            )
        row.notes.append(f"id {last} before, {first} after; {', '.join(sorted(claims))} kept")


def list_claims(release: Release) -> set[str]:
    """Return the names of the namespace's claims."""
    claims = release.kube.core.list_namespaced_persistent_volume_claim(release.namespace).items
    return {claim.metadata.name for claim in claims}


SCENARIOS = (upgrade, fill_volume, reinstall)
