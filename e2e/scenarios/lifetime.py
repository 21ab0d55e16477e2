"""A small archive volume is filled and freed, survives uninstall, and is used by the next install.

If there is a chart of an earlier release, the part installs that one, upgrades, rolls back and
upgrades again. Each release continues with the archive and the Redis data of the other.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from e2e import environment, images, pod_archive
from e2e.kube import wait_for
from e2e.measure import Figures, ScenarioFailed, require_none_failed
from e2e.release import CHART, HELM_SECONDS, NAME, Release
from e2e.report import Report, Row
from e2e.scenarios.faults import describe_failures, require_recovery
from e2e.target import ROOT

RATE = 60.0
RELEASED = ROOT / "tests" / "chart" / "released"
FLUSHER = f"{NAME}-flusher-0"
FILL = "/var/lib/busyapi/fill"
# Small writes take the space that large ones leave, and the next round what the file system frees.
FILLING = f"""
for round in 1 2 3 4 5; do
  cat /dev/zero >> {FILL}
  dd if=/dev/zero of={FILL} bs=1k oflag=append conv=notrunc
  sync {FILL}
done 2> /dev/null
"""
MIN_BACKLOG = 500
"""Usages that wait to be archived: enough to show that the flusher cannot write."""
SMALL = {"flusher": {"persistence": {"size": "64Mi"}}, "valkey": {"persistence": {"size": "512Mi"}}}


def find_previous_chart() -> Path | None:
    """Return the newest released chart before this one."""
    this = _version(yaml.safe_load((CHART / "Chart.yaml").read_text())["version"])
    charts = {_version(path.stem): path for path in RELEASED.glob("busyapi-*.tgz")}
    return max(((v, path) for v, path in charts.items() if v < this), default=(None, None))[1]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(match) for match in re.findall(r"\d+", text))


def upgrade(site: Release, report: Report) -> None:
    """Upgrade from the previous release, roll back to it, and upgrade again, each under load."""
    values = {**site.routing_values(), **SMALL}
    chart = find_previous_chart()
    with report.row("upgrade from the previous release's chart") as row:
        obstacle = find_obstacle(site, chart)
        if chart is None or obstacle:
            row.left_out = True
            row.notes.append(obstacle)
            site.install(values)
            site.wait_routed()
            return
        site.install(values, chart)
        site.wait_routed()
        change_under_load(site, row, lambda: site.upgrade({}))
        row.notes.append(f"from {chart.name}")
    with report.row("rollback to the previous release") as row:
        change_under_load(site, row, lambda: roll_back(site))
    with report.row("upgrade to this release again") as row:
        change_under_load(site, row, lambda: site.upgrade({}))


def roll_back(site: Release) -> None:
    """`helm rollback --wait`."""
    site.helm.rollback(NAME, wait="watcher", timeout=HELM_SECONDS)
    site.kube.wait_settled()


def change_under_load(site: Release, row: Row, change: Callable[[], None]) -> None:
    """Change the release under a load of every kind of post, and audit all posts so far."""
    (valkey,) = site.kube.pods("valkey")
    with site.load(RATE, mixed=True) as load:
        time.sleep(3)
        change()
        row.figures = load.stop()
    row.verdict = site.audit()
    judge_upgrade(
        row, row.figures, rolled=site.kube.pods("valkey")[0].metadata.uid != valkey.metadata.uid
    )


def find_obstacle(site: Release, chart: Path | None) -> str:
    """Try to provide the previous release; return what is missing for the upgrade."""
    if chart is None:
        return "this is the first release: there is no earlier one"
    tag = environment.name_image(chart.stem.removeprefix("busyapi-"))
    if (
        not site.target.load
        or site.kube.has_image(tag)
        or images.load_release(site.target, chart, tag)
    ):
        return ""
    return f"no {tag} on the cluster, and no history in this clone to build it from"


def judge_upgrade(row: Row, figures: Figures, *, rolled: bool) -> None:
    """Check that no request failed. They may if the upgrade replaced the only Valkey."""
    if not rolled:
        require_none_failed(figures)
        return
    row.notes += ["Valkey was replaced, as this upgrade requires", *describe_failures(figures)]
    require_recovery(figures)


def fill_volume(site: Release, report: Report) -> None:
    """Fill the archive's volume: usages wait in Valkey, and no request fails."""
    with report.row("archive volume filled, then given space") as row:
        with site.load(RATE) as load:
            time.sleep(3)
            site.kube.run(FLUSHER, "sh", "-c", FILLING, check=False)
            wait_for(
                lambda: pod_archive.count_backlog(site.kube) >= MIN_BACKLOG,
                f"{MIN_BACKLOG} to wait",
                60,
            )
            errors = read_archive_errors(site)
            row.notes.append(
                f"{pod_archive.count_backlog(site.kube)} waited; the flusher's errors: {errors}"
            )
            site.kube.run(FLUSHER, "rm", FILL)
            wait_for(
                lambda: pod_archive.count_backlog(site.kube) < MIN_BACKLOG / 5,
                "the flusher to continue",
                60,
            )
            row.figures = load.stop()
        row.verdict = site.audit()
        require_none_failed(row.figures)


def read_archive_errors(site: Release) -> str:
    """Return the errors in the flusher's metrics; there must be one."""
    scrape = site.kube.get(FLUSHER, pod_archive.PORT, "/metrics")
    lines = [e for e in scrape.splitlines() if e.startswith("busyapi_archive_errors_total{")]
    errors = [line for line in lines if float(line.split()[-1])]
    if not errors:
        raise ScenarioFailed(f"a full volume, and no busyapi_archive_errors_total: {lines}")
    return ", ".join(errors)


def reinstall(site: Release, report: Report) -> None:
    """Uninstall and install again: the volumes are kept, and ids continue."""
    with report.row("uninstall keeps the volumes, the next install continues") as row:
        last = site.post_seed()
        site.wait_flushed()
        site.helm.uninstall(NAME, wait="watcher", timeout=180)
        wait_for(lambda: not site.kube.pods(), "the pods to end", 120)
        claims = list_claims(site)
        if claims != {f"archive-{FLUSHER}", f"data-{NAME}-valkey-0"}:
            raise ScenarioFailed(f"claims after uninstall: {claims}")
        site.install(site.values)
        site.wait_routed()
        first = site.post_seed()
        row.verdict = site.audit()
        if first != last + 1 or row.verdict.skipped:
            raise ScenarioFailed(
                f"ids continued with {first} after {last}; {row.verdict.skipped} skipped"
            )
        row.notes.append(f"id {last} before, {first} after; {', '.join(sorted(claims))} stayed")


def list_claims(site: Release) -> set[str]:
    """Return the names of the namespace's claims."""
    claims = site.kube.core.list_namespaced_persistent_volume_claim(site.namespace).items
    return {claim.metadata.name for claim in claims}


SCENARIOS = (upgrade, fill_volume, reinstall)
