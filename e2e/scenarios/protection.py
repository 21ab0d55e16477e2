"""Delete and scale by mistake, with the commands of docs/how-to, and check what is refused or kept.

A deleted namespace is recovered from volumes that are set to `Retain`. Nothing may be lost.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import yaml
from kubernetes.client import ApiException

from e2e.kube import RESTRICTED, wait_for
from e2e.measure import ScenarioFailed
from e2e.pages import run_blocks
from e2e.release import CHART, HELM_SECONDS, NAME, Release
from e2e.report import Report
from e2e.scenarios.operations import SMALL
from e2e.shell import open_shell
from e2e.target import ROOT

RATE = 60.0
STEADY_SECONDS = 3.0
POLICY_SECONDS = 30
"""A server enforces a new policy after a second or two."""
STILL_ZERO_SECONDS = 30
"""The autoscaler checks every 15 seconds or more often."""
POLICY = ROOT / "k8s" / "data-protection" / "policy.yaml"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
CLAIMS = (f"archive-{NAME}-flusher-0", f"data-{NAME}-valkey-0")
CONSENT = {"metadata": {"annotations": {"busyapi-delete-data": "yes"}}}


def install_release(release: Release, report: Report) -> None:
    """Install the release for the scenarios below."""
    with report.row("install for protection"):
        release.install({**release.routing_values(), **SMALL, "autoscaling": {"enabled": True}})
        release.wait_until_routed()


def refuse_deletion(release: Release, report: Report) -> None:
    """Apply the policy, and check that it protects namespace and claims while devices post."""
    with report.row("policy refuses to delete namespace and claims") as row:
        if not release.kube.exists(f"{ADMISSION}/validatingadmissionpolicies"):
            row.skipped = True
            row.notes.append("needs Kubernetes 1.30")
            return
        with apply_policy(release), release.load(RATE) as load:
            wait_for(
                lambda: try_deletion(release, "namespace", dry_run="All"),
                "the policy",
                POLICY_SECONDS,
            )
            time.sleep(STEADY_SECONDS)
            row.notes.append(require_refused(release, "namespace"))
            for claim in CLAIMS:
                require_refused(release, claim)
            if release.kube.core.read_namespace(release.namespace).status.phase != "Active":
                raise ScenarioFailed("the namespace is being deleted")
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
            require_consent_for_all(release)
        row.verdict = release.audit()


@contextmanager
def apply_policy(release: Release) -> Iterator[None]:
    """Apply the policy as the page says, and remove it at the end."""
    try:
        with open_shell(release, has_busyapi=True) as bash:
            run_blocks(bash, "keep-policy")
        yield
    finally:
        for document in yaml.safe_load_all(POLICY.read_text()):
            kind = {"ValidatingAdmissionPolicy": "validatingadmissionpolicies"}.get(
                document["kind"], "validatingadmissionpolicybindings"
            )
            release.kube.delete(f"{ADMISSION}/{kind}/{document['metadata']['name']}")


def require_refused(release: Release, name: str) -> str:
    """Try to delete without a dry run, and return the refusal.

    Raises:
        ScenarioFailed: It was not refused.
    """
    answer = try_deletion(release, name)
    if not answer:
        raise ScenarioFailed(f"{name} was deleted")
    return answer


def try_deletion(release: Release, name: str, **options: Any) -> str:
    """Try to delete the namespace or a claim. Return the policy's refusal, or "" without one."""
    core, namespace = release.kube.core, release.namespace
    try:
        if name == "namespace":
            core.delete_namespace(namespace, **options)
        else:
            core.delete_namespaced_persistent_volume_claim(name, namespace, **options)
    except ApiException as error:
        answer = str(json.loads(error.body or "{}")["message"])
        if error.status != HTTPStatus.FORBIDDEN or "the data of patients" not in answer:
            raise
        return answer
    return ""


def require_consent_for_all(release: Release) -> None:
    """Annotate one claim after the other. Only consent for all lets the namespace be deleted.

    Raises:
        ScenarioFailed: The policy decides otherwise.
    """
    patch_claim = release.kube.core.patch_namespaced_persistent_volume_claim
    for claim in CLAIMS:
        require_refused(release, "namespace")
        patch_claim(claim, release.namespace, CONSENT)
        if try_deletion(release, claim, dry_run="All"):
            raise ScenarioFailed(f"{claim} cannot be deleted with the annotation")
    wait_for(lambda: not try_deletion(release, "namespace", dry_run="All"), "consent for all", 10)


def recover_namespace(release: Release, report: Report) -> None:
    """Delete the namespace with volumes set to Retain, and recover it without a loss."""
    with (
        report.row("namespace deleted, recovered from kept volumes") as row,
        open_shell(release, has_busyapi=True) as bash,
    ):
        run_blocks(bash, "keep-retain")
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        last = release.post_example()
        try:
            release.kube.delete_namespace()
            run_blocks(bash, "keep-recover")
            release.kube.core.patch_namespace(
                release.namespace, {"metadata": {"labels": RESTRICTED}}
            )
            release.install(release.values)
            release.wait_until_routed()
            row.notes.append(f"id before: {last}, after: {(number := release.post_example())}")
            if number != last + 1:
                raise ScenarioFailed(row.notes[-1])
            row.verdict = release.audit()
        finally:
            set_volumes_to_delete(release)


def set_volumes_to_delete(release: Release) -> None:
    """Set the volumes to `Delete` again, so that they end with the namespace."""
    patch = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
    for volume in release.kube.core.list_persistent_volume().items:
        claim = volume.spec.claim_ref
        if claim and claim.namespace == release.namespace:
            release.kube.core.patch_persistent_volume(volume.metadata.name, patch)


def scale_to_zero(release: Release, report: Report) -> None:
    """Scale the API to 0. A rollback keeps it, an upgrade warns, the page's command fixes it."""
    with report.row("API scaled to 0 stays at 0 through upgrade and rollback") as row:
        body = {"spec": {"replicas": 0}}
        release.kube.apps.patch_namespaced_deployment_scale(NAME, release.namespace, body)
        wait_for(lambda: not release.kube.pods("api"), "the API to end")
        upgraded = release.helm.upgrade(
            CHART, NAME, release.values, wait="watcher", timeout=HELM_SECONDS
        )
        notes = upgraded["notes"]
        if "was scaled to 0" not in notes:
            raise ScenarioFailed(f"the notes do not warn: {notes}")
        release.helm.rollback(NAME, wait="watcher", timeout=HELM_SECONDS)
        time.sleep(STILL_ZERO_SECONDS)
        row.notes.append(f"{len(release.kube.pods('api'))} API pods after helm rollback --wait")
        with open_shell(release, has_busyapi=True) as bash:
            run_blocks(bash, "scaled-up")
        release.wait_until_routed()
        release.post_example()
        row.verdict = release.audit()


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (
    install_release,
    refuse_deletion,
    scale_to_zero,
    recover_namespace,
)
