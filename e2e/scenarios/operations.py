"""The procedures of docs/how-to, with the commands of the pages, under load.

Most procedures must lose nothing. After a restored backup and a lost Redis, exactly the usages that
the page names are lost.
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
from e2e.measure import ScenarioFailed, require_none_failed
from e2e.release import NAME, Release
from e2e.report import Report
from e2e.scenarios.boundaries import ask_valkey
from e2e.scenarios.faults import describe_failures, require_recovery
from e2e.target import ROOT
from testkit.chart.programs import helm3, kubectl
from testkit.checker import Defect, Verdict, check_history
from testkit.docs.runbook_shell import Shell, on_cluster
from testkit.docs.runbooks import Block, parse
from testkit.history import History, Outcome

RATE = 60.0
STEADY_SECONDS = 3.0
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
    """Provide a bash for this site's release."""
    with tempfile.TemporaryDirectory() as folder:
        bash = on_cluster(Path(folder), kubectl(), helm3(), site.target.kubeconfig, site.namespace)
        bash.settings["WORK"] = folder
        bash.add_program("busyapi", f'#!/bin/sh\nexec {sys.executable} -m busyapi "$@"\n')
        yield bash


def run_blocks(bash: Shell, mark: str) -> str:
    """Run the blocks with a mark in their order, and return their output.

    Raises:
        ScenarioFailed: A command failed, or there is no such block.
    """
    blocks = find_blocks(mark)
    results = [bash.run(block.text) for block in blocks]
    failed = [failure for result in results for failure in result.failures]
    if failed or not blocks:
        raise ScenarioFailed(
            f"{mark}, {len(blocks)} blocks: {failed} {[e.output for e in results]}"
        )
    return "".join(result.output for result in results)


def find_blocks(mark: str) -> list[Block]:
    """Return the blocks with a mark, which are all on one page."""
    pages = (parse(path.stem, path.read_text()) for path in sorted(HOW_TO.glob("*.md")))
    return [block for page in pages for block in page.of("sh", mark)]


def run_timed(bash: Shell, mark: str) -> str:
    """Run the blocks with a mark, and return a note with the duration."""
    began = time.monotonic()
    run_blocks(bash, mark)
    return f"{mark}: {time.monotonic() - began:.0f} s"


def start(site: Release, report: Report) -> None:
    """Install the release for the scenarios below."""
    with report.row("install for operations"):
        site.install({**site.routing_values(), **SMALL})
        site.wait_routed()


def move_volume(site: Release, report: Report) -> None:
    """Move a partition's archive to another volume; no request fails."""
    with report.row("partition moved to another volume") as row, shell(site) as bash:
        before = read_volume(site)
        with site.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.notes.append(run_timed(bash, "move"))
            site.kube.wait_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        run_blocks(bash, "move-finish")
        if read_volume(site) == before:
            raise ScenarioFailed(f"the flusher is still on {before}")
        row.verdict = site.audit()
        require_none_failed(row.figures)


def read_volume(site: Release) -> str:
    """Return the volume of the flusher's claim."""
    claim = site.kube.core.read_namespaced_persistent_volume_claim(
        f"archive-{FLUSHER}", site.namespace
    )
    return str(claim.spec.volume_name)


def rotate_passwords(site: Release, report: Report) -> None:
    """Rotate the passwords: requests may fail only during two restarts of Valkey."""
    with report.row("Valkey's passwords rotated") as row, shell(site) as bash:
        old = read_passwords(site)
        with site.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.notes.append(run_timed(bash, "rotate"))
            wait_for(
                lambda: is_renewed(site), "the pods to have the new passwords", RENEWED_SECONDS
            )
            run_blocks(bash, "rotate-new")
            row.notes.append(run_timed(bash, "rotate-old"))
            site.kube.wait_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.notes += describe_failures(row.figures)
        row.verdict = site.audit()
        site.upgrade({})
        for role, password in read_passwords(site).items():
            if not read_own_key(site, role, password).strip().isdigit():
                raise ScenarioFailed(f"{role} cannot log in with the new password")
            if "NOAUTH" not in (reply := read_own_key(site, role, old[role])):
                raise ScenarioFailed(f"{role}, with the old password: {reply}")
        require_recovery(row.figures)


def read_passwords(site: Release) -> dict[str, str]:
    """Return the password of each role."""
    data = site.kube.core.read_namespaced_secret(f"{NAME}-valkey", site.namespace).data
    return {role: b64decode(data[f"{role}-password"]).decode() for role in ("api", "flusher")}


def read_own_key(site: Release, role: str, password: str) -> str:
    """Return Valkey's reply to a role that reads its own key."""
    login = ("--user", role, "--pass", password, "--no-auth-warning")
    return ask_valkey(site, *login, "GET", "busyapi:{0}:seq")


def is_renewed(site: Release) -> bool:
    """Return whether each pod has the password of the Secret."""
    read = ("cat", "/etc/busyapi/redis/password")
    return all(
        site.kube.run(pod.metadata.name, *read).decode() == password
        for role, password in read_passwords(site).items()
        for pod in site.kube.list_ready_pods(role)
    )


def restore_archive(site: Release, report: Report) -> None:
    """Back up the archive of a running flusher, lose its volume, and give up later usages."""
    with report.row("archive backed up, its volume lost, restored") as row, shell(site) as bash:
        with site.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.notes.append(run_timed(bash, "back-up"))
            time.sleep(STEADY_SECONDS)
            row.notes.append(run_timed(bash, "restore"))
            loss = wait_for(lambda: find_suspected_loss(site), "the flusher to suspect a loss")
            row.notes.append(f"{loss[0]}; given up: {int(loss[1]) - int(loss[2])}")
            run_blocks(bash, "restore-accept")
            site.kube.wait_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        verdict = accept_loss(site)
        row.notes.append(
            f"of the usages that were answered with 201, {count_missing(verdict)} are gone"
        )
        require_none_failed(row.figures)
        if count_missing(verdict) != int(loss[1]) - int(loss[2]):
            raise ScenarioFailed(f"it said {loss[0]}, and {count_missing(verdict)} are gone")


def find_suspected_loss(site: Release) -> re.Match[str] | None:
    """Return the loss that the flusher reports, if any."""
    runs = [pod for pod in site.kube.pods("flusher") if pod.status.phase == "Running"]
    log = site.kube.core.read_namespaced_pod_log(FLUSHER, site.namespace) if runs else ""
    return SUSPECTED.search(log)


def lose_redis(site: Release, report: Report) -> None:
    """Lose Valkey's volume, with usages that no flusher has archived."""
    with report.row("Redis lost for good, with what was not archived") as row, shell(site) as bash:
        with site.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            scale_flushers(site, 0)
            time.sleep(STEADY_SECONDS)
            row.notes.append(run_timed(bash, "lost"))
            last_seq = max(
                int(float(line.split()[1])) for line in run_blocks(bash, "lost-count").splitlines()
            )
            scale_flushers(site, 1)
            site.kube.wait_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        verdict = accept_loss(site)
        gap = pod_archive.read(site.kube).partitions[0].gaps[-1]
        lost_count, unknown_count = last_seq - gap.first + 1, site.history.usages[Outcome.UNKNOWN]
        row.notes += describe_failures(row.figures)
        row.notes.append(
            f"the page counts {lost_count}, {count_missing(verdict)} of them answered with 201;"
            f" {gap.last - gap.first + 1} ids skipped"
        )
        if (
            not count_missing(verdict)
            or not 0 <= lost_count - count_missing(verdict) <= unknown_count
        ):
            raise ScenarioFailed(f"{row.notes[-1]}; {unknown_count} unknown")
        require_recovery(row.figures)


def scale_flushers(site: Release, replicas: int) -> None:
    """Stop the flushers, or start them again."""
    body = {"spec": {"replicas": replicas}}
    site.kube.apps.patch_namespaced_stateful_set_scale(f"{NAME}-flusher", site.namespace, body)
    wait_for(lambda: len(site.kube.pods("flusher")) == replicas, "the flushers to end or begin")


def accept_loss(site: Release) -> Verdict:
    """Compare the archive with the history: only missing usages are accepted.

    Missing usages are removed from the history, so that the next check counts only its own.
    """
    site.wait_flushed()
    archive = site.distinguish_seeds(pod_archive.read(site.kube))
    verdict = check_history(site.history, archive)
    if set(verdict.defects) - {Defect.MISSING}:
        raise ScenarioFailed(str(verdict))
    pod_archive.verify(site.kube)
    archived = {line.digest for line in archive.partitions[0].lines}
    history = History()
    for request in site.history.requests:
        if request.outcome is not Outcome.OK or request.digests[0] in archived:
            history.add(request)
    site.history = history
    return verdict


def count_missing(verdict: Verdict) -> int:
    """Return the number of usages answered with 201 that the archive lacks."""
    return verdict.defects[Defect.MISSING]


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (
    start,
    move_volume,
    rotate_passwords,
    restore_archive,
    lose_redis,
)
