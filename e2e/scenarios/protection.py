"""Deletions and scalings by mistake, with the commands of docs/how-to: what is refused, what stays.

A deleted namespace is recovered from volumes that are set to `Retain`: nothing is lost.
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
from e2e.release import CHART, HELM_SECONDS, NAME, Release
from e2e.report import Report
from e2e.scenarios.operations import SMALL, run_blocks, shell
from e2e.target import ROOT

RATE = 60.0
STEADY_SECONDS = 3.0
POLICY_SECONDS = 30
"""A server enforces a new policy after a second or two."""
STILL_ZERO_SECONDS = 30
"""The autoscaler looks every 15 seconds or more often."""
POLICY = ROOT / "k8s" / "data-protection" / "policy.yaml"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
CLAIMS = (f"archive-{NAME}-flusher-0", f"data-{NAME}-valkey-0")
CONSENT = {"metadata": {"annotations": {"busyapi-delete-data": "yes"}}}


def start(site: Release, report: Report) -> None:
    """Install the release for the scenarios below."""
    with report.row("install for protection"):
        site.install({**site.routing_values(), **SMALL, "autoscaling": {"enabled": True}})
        site.wait_routed()


def refuse_deletion(site: Release, report: Report) -> None:
    """Apply the policy; the namespace and its claims cannot be deleted, and devices are served."""
    with report.row("policy refuses to delete namespace and claims") as row:
        if not site.kube.exists(f"{ADMISSION}/validatingadmissionpolicies"):
            row.left_out = True
            row.notes.append("needs Kubernetes 1.30")
            return
        with policy(site), site.load(RATE) as load:
            wait_for(
                lambda: refusal(site, "namespace", dry_run="All"), "the policy", POLICY_SECONDS
            )
            time.sleep(STEADY_SECONDS)
            row.notes.append(require_refused(site, "namespace"))
            for claim in CLAIMS:
                require_refused(site, claim)
            if site.kube.core.read_namespace(site.namespace).status.phase != "Active":
                raise ScenarioFailed("the namespace is being deleted")
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
            require_consent_counts(site)
        row.verdict = site.audit()


@contextmanager
def policy(site: Release) -> Iterator[None]:
    """Apply the policy as the page says, and remove it at the end."""
    try:
        with shell(site) as bash:
            run_blocks(bash, "keep-policy")
        yield
    finally:
        for document in yaml.safe_load_all(POLICY.read_text()):
            kind = {"ValidatingAdmissionPolicy": "validatingadmissionpolicies"}.get(
                document["kind"], "validatingadmissionpolicybindings"
            )
            site.kube.delete(f"{ADMISSION}/{kind}/{document['metadata']['name']}")


def require_refused(site: Release, name: str) -> str:
    """Try a deletion for real, and return the refusal.

    Raises:
        ScenarioFailed: It was not refused.
    """
    answer = refusal(site, name)
    if not answer:
        raise ScenarioFailed(f"{name} was deleted")
    return answer


def refusal(site: Release, name: str, **options: Any) -> str:
    """Delete the namespace or a claim; return the policy's answer, or "" if it is deleted."""
    core, place = site.kube.core, site.namespace
    try:
        if name == "namespace":
            core.delete_namespace(place, **options)
        else:
            core.delete_namespaced_persistent_volume_claim(name, place, **options)
    except ApiException as error:
        answer = str(json.loads(error.body or "{}")["message"])
        if error.status != HTTPStatus.FORBIDDEN or "the data of patients" not in answer:
            raise
        return answer
    return ""


def require_consent_counts(site: Release) -> None:
    """Annotate one claim, then all: a namespace can be deleted only with the consent for all.

    Raises:
        ScenarioFailed: The policy decides otherwise.
    """
    change = site.kube.core.patch_namespaced_persistent_volume_claim
    for claim in CLAIMS:
        require_refused(site, "namespace")
        change(claim, site.namespace, CONSENT)
        if refusal(site, claim, dry_run="All"):
            raise ScenarioFailed(f"{claim} cannot be deleted with the annotation")
    wait_for(lambda: not refusal(site, "namespace", dry_run="All"), "consent for all", 10)


def recover_namespace(site: Release, report: Report) -> None:
    """Delete the namespace with volumes set to Retain, and recover: ids continue, nothing lost."""
    with report.row("namespace deleted, recovered from kept volumes") as row, shell(site) as bash:
        run_blocks(bash, "keep-retain")
        with site.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        last = site.post_seed()
        try:
            site.kube.delete_namespace()
            run_blocks(bash, "keep-recover")
            site.kube.core.patch_namespace(site.namespace, {"metadata": {"labels": RESTRICTED}})
            site.install(site.values)
            site.wait_routed()
            row.notes.append(f"id before: {last}, after: {(number := site.post_seed())}")
            if number != last + 1:
                raise ScenarioFailed(row.notes[-1])
            row.verdict = site.audit()
        finally:
            give_up_volumes(site)


def give_up_volumes(site: Release) -> None:
    """Let the volumes end with the namespace, as before."""
    change = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
    for volume in site.kube.core.list_persistent_volume().items:
        claim = volume.spec.claim_ref
        if claim and claim.namespace == site.namespace:
            site.kube.core.patch_persistent_volume(volume.metadata.name, change)


def scale_to_zero(site: Release, report: Report) -> None:
    """Scale the API to 0: a rollback leaves it, the notes of an upgrade warn, the page mends it."""
    with report.row("API scaled to 0 stays at 0 through upgrade and rollback") as row:
        body = {"spec": {"replicas": 0}}
        site.kube.apps.patch_namespaced_deployment_scale(NAME, site.namespace, body)
        wait_for(lambda: not site.kube.pods("api"), "the API to end")
        release = site.helm.upgrade(CHART, NAME, site.values, wait="watcher", timeout=HELM_SECONDS)
        notes = release["notes"]
        if "was scaled to 0" not in notes:
            raise ScenarioFailed(f"the notes do not warn: {notes}")
        site.helm.rollback(NAME, wait="watcher", timeout=HELM_SECONDS)
        time.sleep(STILL_ZERO_SECONDS)
        row.notes.append(f"{len(site.kube.pods('api'))} API pods after helm rollback --wait")
        with shell(site) as bash:
            run_blocks(bash, "scaled-up")
        site.wait_routed()
        site.post_seed()
        row.verdict = site.audit()


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (
    start,
    refuse_deletion,
    scale_to_zero,
    recover_namespace,
)
