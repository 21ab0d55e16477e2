"""k8s/data-protection is valid, and matches the claims that chart and overlays create."""

from itertools import pairwise
from pathlib import Path

import pytest

from testkit.chart.rendering import (
    CHART,
    MODES,
    ROOT,
    Json,
    find_object,
    mode_name,
    of_kind,
    parse,
    render,
    values_of,
)
from testkit.chart.schemas import VERSIONS, find_schema_error
from tests.chart.test_kustomize import build

FOLDER = ROOT / "k8s" / "data-protection"
POLICIES = parse((FOLDER / "policy.yaml").read_text())
(CLASS,) = parse((FOLDER / "storage-class.yaml").read_text())
FIRST = VERSIONS.index("1.30")
"""The first version with admissionregistration.k8s.io/v1 of these kinds."""


def policy(name: str) -> Json:
    spec: Json = find_object(POLICIES, "ValidatingAdmissionPolicy", name)["spec"]
    return spec


def binding(name: str) -> Json:
    spec: Json = find_object(POLICIES, "ValidatingAdmissionPolicyBinding", name)["spec"]
    return spec


def claims(documents: list[Json]) -> list[Json]:
    return [
        claim
        for document in of_kind(documents, "StatefulSet")
        for claim in document["spec"].get("volumeClaimTemplates") or []
    ]


@pytest.mark.parametrize("version", VERSIONS[FIRST:])
def test_policies_and_class_are_valid_for_each_kubernetes_version(version: str) -> None:
    assert [find_schema_error(document, version) for document in [*POLICIES, CLASS]] == [""] * 5


def test_policies_are_too_new_for_older_versions_as_the_pages_say() -> None:
    assert all(find_schema_error(document, VERSIONS[FIRST - 1]) for document in POLICIES)
    for page in (FOLDER / "README.md", FOLDER / "policy.yaml", ROOT / "docs/how-to/keep-data.md"):
        assert "Kubernetes 1.30 or newer" in page.read_text()


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("busyapi-keep-claims", "persistentvolumeclaims"),
        ("busyapi-keep-namespaces", "namespaces"),
    ],
)
def test_policy_denies_deletions_and_also_if_it_cannot_be_evaluated(
    name: str, resource: str
) -> None:
    (rule,) = policy(name)["matchConstraints"]["resourceRules"]
    assert (rule["operations"], rule["resources"]) == (["DELETE"], [resource])
    assert policy(name)["failurePolicy"] == "Fail"
    assert binding(name)["policyName"] == name
    assert binding(name)["validationActions"] == ["Deny"]


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_policies_select_every_claim_of_the_chart(mode: Path) -> None:
    selectors = (
        policy("busyapi-keep-claims")["matchConstraints"]["objectSelector"],
        binding("busyapi-keep-namespaces")["paramRef"]["selector"],
    )
    values = values_of(mode)
    for claim in claims(render(values)):
        for selector in selectors:
            labels = claim["metadata"]["labels"].items()
            assert selector["matchLabels"].items() <= labels or "nameOverride" in values


def test_consent_is_the_annotation_that_the_procedures_set() -> None:
    for name, source in (("claims", "oldObject"), ("namespaces", "params")):
        (validation,) = policy(f"busyapi-keep-{name}")["validations"]
        consent = f"{source}.metadata.annotations['busyapi-delete-data'] == 'yes'"
        assert consent in validation["expression"]
    for page in sorted((ROOT / "docs" / "how-to").glob("*.md")):
        lines = page.read_text().splitlines()
        for before, line in pairwise(lines):
            if "kubectl -n $NAMESPACE delete pvc" in line:
                assert "busyapi-delete-data=yes" in before, f"{page.name}: {line}"


def test_production_overlay_keeps_every_disk() -> None:
    assert CLASS["reclaimPolicy"] == "Retain"
    used = {claim["spec"]["storageClassName"] for claim in claims(build("overlays/production"))}
    assert used == {CLASS["metadata"]["name"]}
    values = values_of(CHART / "values-production.yaml")
    for part in ("flusher", "valkey"):
        assert values[part]["persistence"]["storageClass"] == CLASS["metadata"]["name"]


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_stateful_sets_keep_their_claims(mode: Path) -> None:
    for document in of_kind(render(values_of(mode)), "StatefulSet"):
        if document["metadata"]["name"].endswith("-exporter"):
            assert "volumeClaimTemplates" not in document["spec"]
            continue
        policy_of_claims = document["spec"].get("persistentVolumeClaimRetentionPolicy")
        assert policy_of_claims == {"whenDeleted": "Retain", "whenScaled": "Retain"}
