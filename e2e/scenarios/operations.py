"""The procedures of docs/how-to, by the commands of the pages, under load.

What takes nothing away may lose nothing. What does, a restored backup and a Redis lost for good,
loses what the page says that it does, to the last usage.
"""

import re
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e import pod_archive
from e2e.kube import wait_for
from e2e.measure import Broken, none_failed
from e2e.release import NAME, Release
from e2e.report import Report
from e2e.scenarios.boundaries import ask_valkey
from e2e.scenarios.faults import failures, served
from e2e.target import ROOT
from testkit.chart.programs import helm3, kubectl
from testkit.checker import Defect, Verdict, check_history
from testkit.docs.runbook_shell import Shell, on_cluster
from testkit.docs.runbooks import Block, parse
from testkit.history import History, Outcome

RATE = 60.0
STEADY = 3.0
HOW_TO = ROOT / "docs" / "how-to"
FLUSHER = f"{NAME}-flusher-0"
SMALL = {
    "config": {"segmentAge": 2},
    "flusher": {"persistence": {"size": "128Mi"}},
    "valkey": {"persistence": {"size": "256Mi"}},
}
SUSPECTED = re.compile(r"usages up to seq (\d+) were archived, but this archive ends at seq (\d+)")
RENEWED_SECONDS = 150
"""A kubelet renews a pod's files within a minute or two."""


@contextmanager
def shell(site: Release) -> Iterator[Shell]:
    """A bash for this site's release."""
    with tempfile.TemporaryDirectory() as folder:
        bash = on_cluster(Path(folder), kubectl(), helm3(), site.target.kubeconfig, site.namespace)
        bash.settings["WORK"] = folder
        bash.add_program("busyapi", f'#!/bin/sh\nexec {sys.executable} -m busyapi "$@"\n')
        yield bash


def do(bash: Shell, mark: str) -> str:
    """Run the blocks with a mark, in their order, and return what they print.

    Raises:
        Broken: a command failed, or there is no such block.
    """
    blocks = blocks_of(mark)
    results = [bash.run(block.text) for block in blocks]
    failed = [failure for result in results for failure in result.failures]
    if failed or not blocks:
        raise Broken(f"{mark}, {len(blocks)} blocks: {failed} {[e.output for e in results]}")
    return "".join(result.output for result in results)


def blocks_of(mark: str) -> list[Block]:
    """Return the blocks with a mark, which are all on one page."""
    pages = (parse(path.stem, path.read_text()) for path in sorted(HOW_TO.glob("*.md")))
    return [block for page in pages for block in page.of("sh", mark)]


def seconds(bash: Shell, mark: str) -> str:
    """Run them, and say how long that took."""
    began = time.monotonic()
    do(bash, mark)
    return f"{mark}: {time.monotonic() - began:.0f} s"


def start(site: Release, report: Report) -> None:
    """Install for what follows."""
    with report.row("install for operations"):
        site.install({**site.routes(), **SMALL})
        site.wait_routed()


def move(site: Release, report: Report) -> None:
    """A partition's archive on another volume; no client notices."""
    with report.row("partition moved to another volume") as row, shell(site) as bash:
        before = volume(site)
        with site.load(RATE) as load:
            time.sleep(STEADY)
            row.notes.append(seconds(bash, "move"))
            site.kube.wait_settled()
            time.sleep(STEADY)
            row.figures = load.stop()
        do(bash, "move-finish")
        if volume(site) == before:
            raise Broken(f"the flusher is still on {before}")
        row.verdict = site.audit()
        none_failed(row.figures)


def volume(site: Release) -> str:
    """Return the volume of the flusher's claim."""
    claim = site.kube.core.read_namespaced_persistent_volume_claim(
        f"archive-{FLUSHER}", site.namespace
    )
    return str(claim.spec.volume_name)


def rotate(site: Release, report: Report) -> None:
    """New passwords: two restarts of Valkey are noticed, and nothing between them."""
    with report.row("Valkey's passwords rotated") as row, shell(site) as bash:
        old = passwords(site)
        with site.load(RATE) as load:
            time.sleep(STEADY)
            row.notes.append(seconds(bash, "rotate"))
            wait_for(lambda: renewed(site), "the pods to have the new passwords", RENEWED_SECONDS)
            do(bash, "rotate-new")
            row.notes.append(seconds(bash, "rotate-old"))
            site.kube.wait_settled()
            time.sleep(STEADY)
            row.figures = load.stop()
        row.notes += failures(row.figures)
        row.verdict = site.audit()
        site.upgrade({})
        for role, password in passwords(site).items():
            if not read_own_key(site, role, password).strip().isdigit():
                raise Broken(f"{role} cannot log in with the new password")
            if "NOAUTH" not in (reply := read_own_key(site, role, old[role])):
                raise Broken(f"{role}, with the old password: {reply}")
        served(row.figures)


def passwords(site: Release) -> dict[str, str]:
    """Of each role."""
    data = site.kube.core.read_namespaced_secret(f"{NAME}-valkey", site.namespace).data
    return {role: b64decode(data[f"{role}-password"]).decode() for role in ("api", "flusher")}


def read_own_key(site: Release, role: str, password: str) -> str:
    """Return what Valkey answers a role that asks for its own key."""
    login = ("--user", role, "--pass", password, "--no-auth-warning")
    return ask_valkey(site, *login, "GET", "busyapi:{0}:seq")


def renewed(site: Release) -> bool:
    """Return whether each pod has the password that the Secret has."""
    read = ("cat", "/etc/busyapi/redis/password")
    return all(
        site.kube.run(pod.metadata.name, *read).decode() == password
        for role, password in passwords(site).items()
        for pod in site.kube.alive(role)
    )


def restore(site: Release, report: Report) -> None:
    """A running flusher's archive, backed up, its volume lost: what came later is given up."""
    with report.row("archive backed up, its volume lost, restored") as row, shell(site) as bash:
        with site.load(RATE) as load:
            time.sleep(STEADY)
            row.notes.append(seconds(bash, "back-up"))
            time.sleep(STEADY)
            row.notes.append(seconds(bash, "restore"))
            loss = wait_for(lambda: find_suspected_loss(site), "the flusher to suspect a loss")
            row.notes.append(f"{loss[0]}; given up: {int(loss[1]) - int(loss[2])}")
            do(bash, "restore-accept")
            site.kube.wait_settled()
            time.sleep(STEADY)
            row.figures = load.stop()
        verdict = given_up(site)
        row.notes.append(f"of those that were answered with 201, {missing(verdict)} are gone")
        none_failed(row.figures)
        if missing(verdict) != int(loss[1]) - int(loss[2]):
            raise Broken(f"it said {loss[0]}, and {missing(verdict)} are gone")


def find_suspected_loss(site: Release) -> re.Match[str] | None:
    """Return the loss that the flusher reports, if it does."""
    runs = [pod for pod in site.kube.pods("flusher") if pod.status.phase == "Running"]
    log = site.kube.core.read_namespaced_pod_log(FLUSHER, site.namespace) if runs else ""
    return SUSPECTED.search(log)


def lost(site: Release, report: Report) -> None:
    """Valkey's volume is gone, and usages with it that no flusher had archived yet."""
    with report.row("Redis lost for good, with what was not archived") as row, shell(site) as bash:
        with site.load(RATE) as load:
            time.sleep(STEADY)
            flushers(site, 0)
            time.sleep(STEADY)
            row.notes.append(seconds(bash, "lost"))
            known = max(int(float(line.split()[1])) for line in do(bash, "lost-count").splitlines())
            flushers(site, 1)
            site.kube.wait_settled()
            time.sleep(STEADY)
            row.figures = load.stop()
        verdict = given_up(site)
        gap = pod_archive.read(site.kube).partitions[0].gaps[-1]
        gone, unsure = known - gap.first + 1, site.history.usages[Outcome.UNKNOWN]
        row.notes += failures(row.figures)
        row.notes.append(
            f"the page counts {gone}, {missing(verdict)} of them were answered with 201;"
            f" {gap.last - gap.first + 1} ids jumped over"
        )
        if not missing(verdict) or not 0 <= gone - missing(verdict) <= unsure:
            raise Broken(f"{row.notes[-1]}; {unsure} unknown")
        served(row.figures)


def flushers(site: Release, replicas: int) -> None:
    """Stop them, or start them again."""
    body = {"spec": {"replicas": replicas}}
    site.kube.apps.patch_namespaced_stateful_set_scale(f"{NAME}-flusher", site.namespace, body)
    wait_for(lambda: len(site.kube.pods("flusher")) == replicas, "the flushers to end or begin")


def given_up(site: Release) -> Verdict:
    """Compare the archive with the history: only missing usages are accepted.

    Those that are missing are forgotten, so that the next look counts its own.
    """
    site.wait_flushed()
    archive = site.distinguish_seeds(pod_archive.read(site.kube))
    verdict = check_history(site.history, archive)
    if set(verdict.defects) - {Defect.MISSING}:
        raise Broken(str(verdict))
    pod_archive.verify(site.kube)
    there = {line.digest for line in archive.partitions[0].lines}
    kept = History()
    for request in site.history.requests:
        if request.outcome is not Outcome.OK or request.digests[0] in there:
            kept.add(request)
    site.history = kept
    return verdict


def missing(verdict: Verdict) -> int:
    """How many of those that were answered with 201 the archive lacks."""
    return verdict.defects[Defect.MISSING]


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (start, move, rotate, restore, lost)
