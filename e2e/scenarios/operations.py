"""Follow the procedures of docs/how-to, and one of a runbook, with the commands of the pages.

Most procedures must lose nothing. After a restored backup or a lost Redis, the lost usages must be
exactly those that the page counts.
"""

import re
import time
from base64 import b64decode
from collections.abc import Callable

from e2e import pod_archive
from e2e.kube import wait_for
from e2e.measure import ScenarioFailed, require_none_failed
from e2e.pages import run_blocks, run_timed
from e2e.release import NAME, Release
from e2e.report import Report
from e2e.scenarios.boundaries import ask_valkey
from e2e.scenarios.faults import Check, describe_failures, require_recovery
from e2e.shell import open_shell
from testkit.checker import Defect, Verdict, check_history
from testkit.docs.runbooks import RUNBOOKS, Block, parse
from testkit.history import History, Outcome

RATE = 60.0
STEADY_SECONDS = 3.0
FLUSHER = f"{NAME}-flusher-0"
SMALL = {
    "config": {"segmentAge": 2},
    "flusher": {"persistence": {"size": "128Mi"}},
    "valkey": {"persistence": {"size": "256Mi"}},
}
REPORTED_LOSS = re.compile(
    r"usages up to seq (\d+) were archived, but this archive ends at seq (\d+)"
)
SEEDED_FROM_OTHER = "Redis was seeded from archive"
RENEWED_SECONDS = 150
"""A kubelet renews a pod's files within a minute or two."""


def install_release(release: Release, report: Report) -> None:
    """Install the release for the scenarios below."""
    with report.row("install for operations"):
        release.install({**release.routing_values(), **SMALL})
        release.wait_until_routed()


def move_volume(release: Release, report: Report) -> None:
    """Move a partition's archive to another volume. No request may fail."""
    with (
        report.row("partition moved to another volume") as row,
        open_shell(release, has_busyapi=True) as bash,
    ):
        before = read_volume(release)
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.notes.append(run_timed(bash, "move"))
            release.kube.wait_until_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        require_retained(release, before)
        run_blocks(bash, "move-finish")
        if (now := read_volume(release)) == before:
            raise ScenarioFailed(f"the flusher is still on {before}")
        require_retained(release, now)
        row.verdict = release.audit()
        require_none_failed(row.figures)


def require_retained(release: Release, volume: str) -> None:
    """Check that a volume outlives its claim."""
    policy = release.kube.core.read_persistent_volume(volume).spec.persistent_volume_reclaim_policy
    if policy != "Retain":
        raise ScenarioFailed(f"{volume} has policy {policy}")


def read_volume(release: Release) -> str:
    """Return the volume of the flusher's claim."""
    claim = release.kube.core.read_namespaced_persistent_volume_claim(
        f"archive-{FLUSHER}", release.namespace
    )
    return str(claim.spec.volume_name)


def mount_right_volume(release: Release, report: Report) -> None:
    """Mount an empty volume, and follow the runbook back to the right one.

    No request may fail.
    """
    with (
        report.row("wrong volume mounted, and the right one by the runbook") as row,
        open_shell(release) as bash,
    ):
        blocks = find_runbook_blocks("BusyapiFlusherHalted", "mount_right_volume")
        right = read_volume(release)
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            scale_flushers(release, 0)
            mount_empty_volume(release, right)
            wait_for(lambda: SEEDED_FROM_OTHER in read_flusher_log(release), "the flusher to halt")
            for block in blocks:
                if failures := bash.run(block.text.replace("VOLUME", right)).failures:
                    raise ScenarioFailed(str(failures))
            release.kube.wait_until_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        if read_volume(release) != right:
            raise ScenarioFailed(f"the flusher is on {read_volume(release)}, not on {right}")
        row.verdict = release.audit()
        require_none_failed(row.figures)


def find_runbook_blocks(name: str, test: str) -> list[Block]:
    """Return the blocks of a runbook that name this scenario as their test."""
    page = parse(name, (RUNBOOKS / f"{name}.md").read_text())
    blocks = [b for b in page.blocks if b.marks[1:] == [f"e2e/scenarios/operations.py::{test}"]]
    assert blocks, test
    return blocks


def mount_empty_volume(release: Release, right: str) -> None:
    """Keep the right volume, delete its claim, and start the flusher on a new one."""
    core = release.kube.core
    policy = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    core.patch_persistent_volume(right, policy)
    core.delete_namespaced_persistent_volume_claim(f"archive-{FLUSHER}", release.namespace)
    wait_for(
        lambda: core.read_persistent_volume(right).status.phase == "Released",
        "the claim to be deleted",
    )
    scale_flushers(release, 1)


def read_flusher_log(release: Release) -> str:
    """Return the flusher's log, "" before it runs."""
    runs = [pod for pod in release.kube.pods("flusher") if pod.status.phase == "Running"]
    if not runs:
        return ""
    return str(release.kube.core.read_namespaced_pod_log(FLUSHER, release.namespace))


def rotate_passwords(release: Release, report: Report, *, check: Check = require_recovery) -> None:
    """Rotate the passwords. Requests may fail only during the two restarts of Valkey."""
    with (
        report.row("Valkey's passwords rotated") as row,
        open_shell(release, has_busyapi=True) as bash,
    ):
        old = read_passwords(release)
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.notes.append(run_timed(bash, "rotate"))
            wait_for(
                lambda: is_renewed(release), "the pods to have the new passwords", RENEWED_SECONDS
            )
            run_blocks(bash, "rotate-new")
            row.notes.append(run_timed(bash, "rotate-old"))
            release.kube.wait_until_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.notes += describe_failures(row.figures)
        # Several servers restart one after the other, and each primary hands over.
        has_replicas = release.values.get("valkey", {}).get("replicas", 1) > 1
        row.verdict = release.audit(failover=has_replicas)
        release.upgrade({})
        for role, password in read_passwords(release).items():
            if not read_own_key(release, role, password).strip().isdigit():
                raise ScenarioFailed(f"{role} cannot log in with the new password")
            if "NOAUTH" not in (reply := read_own_key(release, role, old[role])):
                raise ScenarioFailed(f"{role}, with the old password: {reply}")
        check(row.figures)


def read_passwords(release: Release) -> dict[str, str]:
    """Return the password of each role."""
    data = release.kube.core.read_namespaced_secret(f"{NAME}-valkey", release.namespace).data
    return {role: b64decode(data[f"{role}-password"]).decode() for role in ("api", "flusher")}


def read_own_key(release: Release, role: str, password: str) -> str:
    """Return Valkey's reply to a role that reads its own key."""
    login = ("--user", role, "--pass", password, "--no-auth-warning")
    return ask_valkey(release, *login, "GET", "busyapi:{0}:seq")


def is_renewed(release: Release) -> bool:
    """Return whether each pod has the password of the Secret."""
    read = ("cat", "/etc/busyapi/redis/password")
    return all(
        release.kube.run(pod.metadata.name, *read).decode() == password
        for role, password in read_passwords(release).items()
        for pod in release.kube.list_ready_pods(role)
    )


def restore_archive(release: Release, report: Report) -> None:
    """Back up the archive, lose its volume, restore it, and accept the loss of later usages."""
    with (
        report.row("archive backed up, its volume lost, restored") as row,
        open_shell(release, has_busyapi=True) as bash,
    ):
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.notes.append(run_timed(bash, "back-up"))
            time.sleep(STEADY_SECONDS)
            row.notes.append(run_timed(bash, "restore"))
            loss = wait_for(lambda: find_reported_loss(release), "the flusher to report a loss")
            row.notes.append(f"{loss[0]}; accepted as lost: {int(loss[1]) - int(loss[2])}")
            run_blocks(bash, "restore-accept")
            release.kube.wait_until_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        verdict = accept_loss(release)
        row.notes.append(f"{count_missing(verdict)} usages that were answered with 201 are lost")
        require_none_failed(row.figures)
        if count_missing(verdict) != int(loss[1]) - int(loss[2]):
            raise ScenarioFailed(
                f"the flusher reported {loss[0]}, but {count_missing(verdict)} are lost"
            )


def find_reported_loss(release: Release) -> re.Match[str] | None:
    """Return the loss that the flusher reports, if any."""
    return REPORTED_LOSS.search(read_flusher_log(release))


def lose_redis(release: Release, report: Report) -> None:
    """Lose Valkey's volume, with usages that no flusher has archived."""
    with (
        report.row("Redis lost, with usages that were not archived") as row,
        open_shell(release, has_busyapi=True) as bash,
    ):
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            scale_flushers(release, 0)
            time.sleep(STEADY_SECONDS)
            row.notes.append(run_timed(bash, "lost"))
            last_seq = max(
                int(float(line.split()[1])) for line in run_blocks(bash, "lost-count").splitlines()
            )
            scale_flushers(release, 1)
            release.kube.wait_until_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        verdict = accept_loss(release)
        gap = pod_archive.read(release.kube).partitions[0].gaps[-1]
        lost_count = last_seq - gap.first + 1
        unknown_count = release.history.usages[Outcome.UNKNOWN]
        row.notes += describe_failures(row.figures)
        row.notes.append(
            f"the page's command counts {lost_count} lost usages, {count_missing(verdict)} of them"
            f" answered with 201; {gap.last - gap.first + 1} ids skipped"
        )
        if (
            not count_missing(verdict)
            or not 0 <= lost_count - count_missing(verdict) <= unknown_count
        ):
            raise ScenarioFailed(f"{row.notes[-1]}; {unknown_count} unknown")
        require_recovery(row.figures)


def scale_flushers(release: Release, replicas: int) -> None:
    """Stop the flushers, or start them again."""
    body = {"spec": {"replicas": replicas}}
    release.kube.apps.patch_namespaced_stateful_set_scale(
        f"{NAME}-flusher", release.namespace, body
    )
    wait_for(lambda: len(release.kube.pods("flusher")) == replicas, f"{replicas} flushers")


def accept_loss(release: Release) -> Verdict:
    """Compare the archive with the history, and accept only missing usages.

    Remove these from the history, so that the next check does not count them again.

    Raises:
        ScenarioFailed: the checker found another defect.
    """
    release.wait_until_flushed()
    archive = release.distinguish_examples(pod_archive.read(release.kube))
    verdict = check_history(release.history, archive)
    if set(verdict.defects) - {Defect.MISSING}:
        raise ScenarioFailed(str(verdict))
    pod_archive.verify(release.kube)
    archived = {line.digest for line in archive.partitions[0].lines}
    history = History()
    for request in release.history.requests:
        if request.outcome is not Outcome.OK or request.digests[0] in archived:
            history.add(request)
    release.history = history
    return verdict


def count_missing(verdict: Verdict) -> int:
    """Return the number of usages answered with 201 that the archive lacks."""
    return verdict.defects[Defect.MISSING]


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (
    install_release,
    move_volume,
    mount_right_volume,
    rotate_passwords,
    restore_archive,
    lose_redis,
)
