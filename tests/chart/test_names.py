"""Tests of names, labels and images."""

import re
from pathlib import Path
from typing import Any

import helm_python
import pytest

from testkit.chart.lookups import with_lookup
from testkit.chart.rendering import (
    CHART,
    MODES,
    Json,
    containers,
    find_object,
    load_chart,
    mode_name,
    object_key_of,
    of_kind,
    pods,
    render,
    values_of,
)
from testkit.chart.schemas import VERSIONS, find_schema_error
from tools.chart_release import find_archives

NAME, INSTANCE, COMPONENT = (
    f"app.kubernetes.io/{label}" for label in ("name", "instance", "component")
)
RECOMMENDED = {
    NAME,
    INSTANCE,
    COMPONENT,
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/part-of",
    "helm.sh/chart",
}
LONG = "a-release-with-a-name-as-long-as-helm-takes-one-53-xx"
# The suffix that controller-revision-hash adds to a StatefulSet's name, and the longest label.
HASH, LABEL = len("-6d4cf56db6"), 63


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_every_object_has_the_recommended_labels(mode: Path) -> None:
    extra = values_of(mode).get("extraObjects") or []
    documents = [
        document for document in render(values_of(mode)) if not is_extra_object(document, extra)
    ]
    for document in documents:
        labels = document["metadata"]["labels"]
        assert labels.keys() >= RECOMMENDED, object_key_of(document)
        assert labels["helm.sh/chart"] == f"busyapi-{load_chart(CHART).version}"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert all(len(value) <= LABEL for value in labels.values())


def is_extra_object(document: Json, objects: list[Json | str]) -> bool:
    """Return whether it is one of the user's extra objects."""
    return any(document["kind"] in str(text) for text in objects)


POD_NAME = "statefulset.kubernetes.io/pod-name"


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_selectors_have_only_name_instance_and_component(mode: Path) -> None:
    selectors = []
    for document in render(values_of(mode)):
        spec = document.get("spec") or {}
        if document["kind"] == "Service":
            # A Service of one pod of several also has its name.
            selectors.append(
                {key: value for key, value in spec["selector"].items() if key != POD_NAME}
            )
        elif "selector" in spec:
            selectors.append(spec["selector"]["matchLabels"])
    assert selectors
    assert all(selector.keys() == {NAME, INSTANCE, COMPONENT} for selector in selectors)


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_each_workload_selects_only_its_own_pods(mode: Path) -> None:
    documents = render(values_of(mode))
    workloads = [
        document for document in documents if document["kind"] in {"Deployment", "StatefulSet"}
    ]
    for workload in workloads:
        selector = workload["spec"]["selector"]["matchLabels"].items()
        labels = {name: pod["metadata"]["labels"] for name, pod in pods(documents)}
        selected = [name for name, pod_labels in labels.items() if selector <= pod_labels.items()]
        assert selected == [object_key_of(workload)]


def test_pod_labels_do_not_contain_the_chart_version() -> None:
    for name, pod in pods(render()):
        if not name.startswith("Pod/"):
            assert "helm.sh/chart" not in pod["metadata"]["labels"], name


def test_common_labels_are_on_objects_but_not_in_selectors() -> None:
    for document in render({"commonLabels": {"team": "inhalers"}}):
        assert document["metadata"]["labels"]["team"] == "inhalers", object_key_of(document)
        assert "team" not in str((document.get("spec") or {}).get("selector"))


@pytest.mark.parametrize(
    ("values", "release", "fullname", "name"),
    [
        ({}, "busyapi", "busyapi", "busyapi"),
        ({}, "prod", "prod-busyapi", "busyapi"),
        ({}, "my-busyapi", "my-busyapi", "busyapi"),
        ({"nameOverride": "usages"}, "prod", "prod-usages", "usages"),
        ({"nameOverride": "usages"}, "usages", "usages", "usages"),
        ({"fullnameOverride": "it"}, "prod", "it", "busyapi"),
    ],
)
def test_names_follow_helm_create(values: Json, release: str, fullname: str, name: str) -> None:
    documents = render(values, release=release)
    (deployment,) = of_kind(documents, "Deployment")
    assert deployment["metadata"]["name"] == fullname
    assert deployment["metadata"]["labels"][NAME] == name
    assert deployment["metadata"]["labels"][INSTANCE] == release
    assert all(document["metadata"]["name"].startswith(fullname) for document in documents)


@pytest.mark.parametrize("values", [{}, {"fullnameOverride": "x" * 70}, {"nameOverride": "y" * 70}])
def test_names_and_labels_of_a_long_release_fit(values: Json) -> None:
    documents = render(values, release=LONG)
    for document in documents:
        name = document["metadata"]["name"]
        room = LABEL - HASH if document["kind"] == "StatefulSet" else LABEL
        assert len(name) <= room, object_key_of(document)
        assert not name.endswith("-")
        assert all(len(value) <= LABEL for value in document["metadata"]["labels"].values())
    assert len({object_key_of(document) for document in documents}) == len(documents)


def deployment_name(values: Json | None = None, **options: Any) -> str:
    (deployment,) = of_kind(render(values, **options), "Deployment")
    return str(deployment["metadata"]["name"])


@pytest.mark.parametrize("ending", ["a", "b"])
def test_name_that_is_cut_ends_in_a_hash(ending: str) -> None:
    assert re.fullmatch(r"a-release-with-a.*-[0-9a-f]{8}", deployment_name(release=LONG))
    for values in ({"fullnameOverride": "x" * 60 + ending}, {"nameOverride": "y" * 60 + ending}):
        same = deployment_name(values, release="prod")
        assert same == deployment_name(values, release="prod")
        (other,) = {"a", "b"} - {ending}
        changed = {name: text[:-1] + other for name, text in values.items()}
        assert deployment_name(changed, release="prod") != same


def test_longest_name_is_not_cut() -> None:
    assert deployment_name({"fullnameOverride": "x" * 44}) == "x" * 44
    assert len(deployment_name({"fullnameOverride": "x" * 45})) == 44


INSTALLED = '(dict "metadata" (dict "annotations" (dict "meta.helm.sh/release-name" "%s")))'


@pytest.mark.parametrize(("owner", "keeps"), [(LONG, True), ("another", False)])
def test_installed_release_keeps_its_cut_name(owner: str, keeps: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Other names would mean other volumes."""
    chart = with_lookup(tmp_path, "Deployment", INSTALLED % owner)
    released = deployment_name(release=LONG, chart=find_archives()[-1])
    assert (deployment_name(release=LONG, chart=chart, upgrade=True) == released) is keeps


@pytest.mark.parametrize("release", ["1prod", "prod.eu", "2026"])
def test_release_name_that_no_service_can_have_is_refused(release: str) -> None:
    with pytest.raises(helm_python.HelmError, match="Set fullnameOverride"):
        render(release=release)
    documents = render({"fullnameOverride": "usages"}, release=release)
    assert not any(find_schema_error(document, VERSIONS[0]) for document in documents)
    for document in documents:
        assert document["metadata"]["labels"][INSTANCE] == release


@pytest.mark.parametrize("name", ["null", "yes", "on", "e1"])
def test_name_that_yaml_reads_as_something_else_stays_text(name: str) -> None:
    documents = render({"fullnameOverride": name, "nameOverride": name})
    assert not any(find_schema_error(document, VERSIONS[0]) for document in documents)
    assert find_object(documents, "Deployment", name)["metadata"]["labels"][NAME] == name


@pytest.mark.parametrize("name", ["Usages", "a.b", "1st", "-a", "a-", "a\n b", "a_b"])
def test_full_name_that_no_service_can_have_is_refused(name: str) -> None:
    with pytest.raises(helm_python.HelmError):
        render({"fullnameOverride": name})


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({}, f"busyapi:{load_chart(CHART).metadata['appVersion']}"),
        ({"image": {"tag": "2.0"}}, "busyapi:2.0"),
        ({"image": {"registry": "r.example.org"}}, "r.example.org/busyapi:0.3.0"),
        ({"image": {"repository": "team/busyapi", "tag": "1"}}, "team/busyapi:1"),
        ({"image": {"tag": "1", "digest": "sha256:" + "0" * 64}}, "busyapi@sha256:" + "0" * 64),
        (
            {"global": {"imageRegistry": "g.example.org"}, "image": {"registry": "r.example.org"}},
            "g.example.org/busyapi:0.3.0",
        ),
    ],
)
def test_api_flusher_and_test_use_the_image(values: Json, image: str) -> None:
    images = {
        container["name"]: container["image"]
        for _, pod in pods(render(values))
        for container in containers(pod)
    }
    valkey = images.pop("valkey")
    assert images == {"api": image, "flusher": image, "test": image}
    registry = (values.get("global") or {}).get("imageRegistry", "docker.io")
    assert valkey == f"{registry}/valkey/valkey:8.1"


def test_valkey_image_can_be_given_by_digest() -> None:
    digest = "sha256:" + "1" * 64
    documents = render({"valkey": {"image": {"registry": "", "digest": digest}}})
    (container,) = containers(
        find_object(documents, "StatefulSet", "busyapi-valkey")["spec"]["template"]
    )
    assert container["image"] == f"valkey/valkey@{digest}"


def test_every_pod_has_the_pull_secrets() -> None:
    secrets = [{"name": "registry"}]
    for name, pod in pods(render({"imagePullSecrets": secrets})):
        assert pod["spec"]["imagePullSecrets"] == secrets, name


@pytest.mark.parametrize(
    ("account", "name", "is_created"),
    [
        ({}, "busyapi", True),
        ({"name": "usages"}, "usages", True),
        ({"create": False}, "default", False),
        ({"create": False, "name": "existing"}, "existing", False),
    ],
)
def test_service_account_is_created_and_named_as_values_say(
    account: Json, name: str, *, is_created: bool
) -> None:
    documents = render({"serviceAccount": account})
    assert {pod["spec"]["serviceAccountName"] for _, pod in pods(documents)} == {name}
    accounts = of_kind(documents, "ServiceAccount")
    assert bool(accounts) is is_created
    assert all(
        account_object["automountServiceAccountToken"] is False for account_object in accounts
    )
