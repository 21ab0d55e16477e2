"""A small archive volume: filled and given space; kept by uninstall, and found by the next install.

With a chart of an earlier release at hand, the part begins with that one, upgrades from it, rolls
back to it and upgrades again: each finds the archive and the Redis data that the other left.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from e2e import environment, images, pod_archive
from e2e.kube import wait_for
from e2e.measure import Broken, Figures, none_failed
from e2e.release import CHART, HELM_SECONDS, NAME, Release
from e2e.report import Report, Row
from e2e.scenarios.faults import failures, served
from e2e.target import ROOT

RATE = 60.0
RELEASED = ROOT / "tests" / "chart" / "released"
FLUSHER = f"{NAME}-flusher-0"
FILL = "/var/lib/busyapi/fill"
# What a large write leaves, small ones take; what the file system held back, the next round.
FILLING = f"""
for round in 1 2 3 4 5; do
  cat /dev/zero >> {FILL}
  dd if=/dev/zero of={FILL} bs=1k oflag=append conv=notrunc
  sync {FILL}
done 2> /dev/null
"""
STUCK = 500
"""Usages that cannot be archived: enough to see that they wait elsewhere."""
SMALL = {"flusher": {"persistence": {"size": "64Mi"}}, "valkey": {"persistence": {"size": "512Mi"}}}


def previous() -> Path | None:
    """The newest released chart before this one."""
    this = _version(yaml.safe_load((CHART / "Chart.yaml").read_text())["version"])
    charts = {_version(path.stem): path for path in RELEASED.glob("busyapi-*.tgz")}
    return max(((v, path) for v, path in charts.items() if v < this), default=(None, None))[1]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(match) for match in re.findall(r"\d+", text))


def upgrade(site: Release, report: Report) -> None:
    """Upgrade from the previous release, roll back to it, and upgrade again, each under load."""
    values = {**site.routes(), **SMALL}
    chart = previous()
    with report.row("upgrade from the previous release's chart") as row:
        why = missing(site, chart)
        if chart is None or why:
            row.left_out = True
            row.notes.append(why)
            site.install(values)
            site.wait_routed()
            return
        site.install(values, chart)
        site.wait_routed()
        under_load(site, row, lambda: site.upgrade({}))
        row.notes.append(f"from {chart.name}")
    with report.row("rollback to the previous release") as row:
        under_load(site, row, lambda: back(site))
    with report.row("upgrade to this release again") as row:
        under_load(site, row, lambda: site.upgrade({}))


def back(site: Release) -> None:
    """`helm rollback --wait`."""
    site.helm.rollback(NAME, wait="watcher", timeout=HELM_SECONDS)
    site.kube.wait_settled()


def under_load(site: Release, row: Row, change: Callable[[], None]) -> None:
    """Change the release while every kind of post comes in, and audit all that was ever sent."""
    (valkey,) = site.kube.pods("valkey")
    with site.load(RATE, mixed=True) as load:
        time.sleep(3)
        change()
        row.figures = load.stop()
    row.verdict = site.audit()
    judge(row, row.figures, rolled=site.kube.pods("valkey")[0].metadata.uid != valkey.metadata.uid)


def missing(site: Release, chart: Path | None) -> str:
    """Return what an upgrade lacks, after trying to get it."""
    if chart is None:
        return "this is the first release: there is none to upgrade from"
    tag = environment.image_of(chart.stem.removeprefix("busyapi-"))
    if not site.target.load or site.kube.has_image(tag) or images.released(site.target, chart, tag):
        return ""
    return f"no {tag} on the cluster, and no history in this clone to build it from"


def judge(row: Row, seen: Figures, *, rolled: bool) -> None:
    """No request fails, unless the release brings another Valkey: there is one of it."""
    if not rolled:
        none_failed(seen)
        return
    row.notes += ["Valkey was replaced, as this release asks", *failures(seen)]
    served(seen)


def full(site: Release, report: Report) -> None:
    """The archive's volume is full: usages wait in Valkey, and no client notices."""
    with report.row("archive volume filled, then given space") as row:
        with site.load(RATE) as load:
            time.sleep(3)
            site.kube.run(FLUSHER, "sh", "-c", FILLING, check=False)
            wait_for(lambda: pod_archive.backlog(site.kube) >= STUCK, f"{STUCK} to wait", 60)
            errors = stuck(site)
            row.notes.append(f"{pod_archive.backlog(site.kube)} waited; the flusher said: {errors}")
            site.kube.run(FLUSHER, "rm", FILL)
            wait_for(
                lambda: pod_archive.backlog(site.kube) < STUCK / 5, "the flusher to continue", 60
            )
            row.figures = load.stop()
        row.verdict = site.audit()
        none_failed(row.figures)


def stuck(site: Release) -> str:
    """Return the errors in its metrics; there must be one."""
    scrape = site.kube.ask(FLUSHER, pod_archive.PORT, "/metrics")
    lines = [e for e in scrape.splitlines() if e.startswith("busyapi_archive_errors_total{")]
    errors = [line for line in lines if float(line.split()[-1])]
    if not errors:
        raise Broken(f"a full volume, and no busyapi_archive_errors_total: {lines}")
    return ", ".join(errors)


def again(site: Release, report: Report) -> None:
    """Uninstall keeps the volumes, and the next install continues with the ids."""
    with report.row("uninstall keeps the volumes, the next install continues") as row:
        last = site.seed()
        site.wait_flushed()
        site.helm.uninstall(NAME, wait="watcher", timeout=180)
        wait_for(lambda: not site.kube.pods(), "the pods to end", 120)
        claims = volumes(site)
        if claims != {f"archive-{FLUSHER}", f"data-{NAME}-valkey-0"}:
            raise Broken(f"claims after uninstall: {claims}")
        site.install(site.values)
        site.wait_routed()
        first = site.seed()
        row.verdict = site.audit()
        if first != last + 1 or row.verdict.skipped:
            raise Broken(f"ids continued with {first} after {last}; {row.verdict.skipped} skipped")
        row.notes.append(f"id {last} before, {first} after; {', '.join(sorted(claims))} stayed")


def volumes(site: Release) -> set[str]:
    """Names of the namespace's claims."""
    claims = site.kube.core.list_namespaced_persistent_volume_claim(site.namespace).items
    return {claim.metadata.name for claim in claims}


SCENARIOS = (upgrade, full, again)
