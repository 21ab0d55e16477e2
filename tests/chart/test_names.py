"""Names, labels and images."""

from pathlib import Path

import pytest

from testkit.chart.rendering import (
    CHART,
    MODES,
    Json,
    containers,
    key,
    loaded,
    mode_name,
    of_kind,
    one,
    pods,
    render,
    values_of,
)

NAME, INSTANCE, COMPONENT = (
    f"app.kubernetes.io/{each}" for each in ("name", "instance", "component")
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
# The longest name of a StatefulSet's pod's controller-revision-hash label, and the longest label.
HASH, LABEL = len("-6d4cf56db6"), 63


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_every_object_has_the_recommended_labels(mode: Path) -> None:
    extra = values_of(mode).get("extraObjects") or []
    documents = [each for each in render(values_of(mode)) if not any_of(each, extra)]
    for each in documents:
        labels = each["metadata"]["labels"]
        assert labels.keys() >= RECOMMENDED, key(each)
        assert labels["helm.sh/chart"] == f"busyapi-{loaded(CHART).version}"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert all(len(value) <= LABEL for value in labels.values())


def any_of(document: Json, objects: list[Json | str]) -> bool:
    """Is it one of the user's own?"""
    return any(document["kind"] in str(each) for each in objects)


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_selectors_hold_name_instance_and_component_only(mode: Path) -> None:
    selectors = []
    for each in render(values_of(mode)):
        spec = each.get("spec") or {}
        if each["kind"] == "Service":
            selectors.append(spec["selector"])
        elif "selector" in spec:
            selectors.append(spec["selector"]["matchLabels"])
    assert selectors
    assert all(each.keys() == {NAME, INSTANCE, COMPONENT} for each in selectors)


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_each_workload_selects_its_own_pods_alone(mode: Path) -> None:
    documents = render(values_of(mode))
    workloads = [each for each in documents if each["kind"] in {"Deployment", "StatefulSet"}]
    for each in workloads:
        wanted = each["spec"]["selector"]["matchLabels"].items()
        labels = {name: pod["metadata"]["labels"] for name, pod in pods(documents)}
        chosen = [name for name, of in labels.items() if wanted <= of.items()]
        assert chosen == [key(each)]


def test_a_pod_does_not_carry_the_chart_s_version() -> None:
    for name, pod in pods(render()):
        if not name.startswith("Pod/"):
            assert "helm.sh/chart" not in pod["metadata"]["labels"], name


def test_labels_of_a_users_own_are_on_objects_and_pods_and_not_in_selectors() -> None:
    for each in render({"commonLabels": {"team": "inhalers"}}):
        assert each["metadata"]["labels"]["team"] == "inhalers", key(each)
        assert "team" not in str((each.get("spec") or {}).get("selector"))


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
def test_names_are_made_as_helm_create_makes_them(
    values: Json, release: str, fullname: str, name: str
) -> None:
    documents = render(values, release=release)
    (deployment,) = of_kind(documents, "Deployment")
    assert deployment["metadata"]["name"] == fullname
    assert deployment["metadata"]["labels"][NAME] == name
    assert deployment["metadata"]["labels"][INSTANCE] == release
    assert all(each["metadata"]["name"].startswith(fullname) for each in documents)


@pytest.mark.parametrize("values", [{}, {"fullnameOverride": "x" * 70}, {"nameOverride": "y" * 70}])
def test_no_name_or_label_of_a_long_release_is_too_long(values: Json) -> None:
    documents = render(values, release=LONG)
    for each in documents:
        name = each["metadata"]["name"]
        room = LABEL - HASH if each["kind"] == "StatefulSet" else LABEL
        assert len(name) <= room, key(each)
        assert not name.endswith("-")
        assert all(len(value) <= LABEL for value in each["metadata"]["labels"].values())
    assert len({key(each) for each in documents}) == len(documents)


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({}, f"busyapi:{loaded(CHART).metadata['appVersion']}"),
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
def test_the_image_of_both_roles_and_the_test(values: Json, image: str) -> None:
    found = {
        one_of["name"]: one_of["image"]
        for _, pod in pods(render(values))
        for one_of in containers(pod)
    }
    valkey = found.pop("valkey")
    assert found == {"api": image, "flusher": image, "test": image}
    registry = (values.get("global") or {}).get("imageRegistry", "docker.io")
    assert valkey == f"{registry}/valkey/valkey:8.1"


def test_the_image_of_valkey_by_digest() -> None:
    digest = "sha256:" + "1" * 64
    documents = render({"valkey": {"image": {"registry": "", "digest": digest}}})
    (container,) = containers(one(documents, "StatefulSet", "busyapi-valkey")["spec"]["template"])
    assert container["image"] == f"valkey/valkey@{digest}"


def test_pull_secrets_are_given_to_every_pod() -> None:
    secrets = [{"name": "registry"}]
    for name, pod in pods(render({"imagePullSecrets": secrets})):
        assert pod["spec"]["imagePullSecrets"] == secrets, name


@pytest.mark.parametrize(
    ("said", "name", "made"),
    [
        ({}, "busyapi", True),
        ({"name": "usages"}, "usages", True),
        ({"create": False}, "default", False),
        ({"create": False, "name": "there"}, "there", False),
    ],
)
def test_the_service_account(said: Json, name: str, made: bool) -> None:  # noqa: FBT001
    documents = render({"serviceAccount": said})
    assert {pod["spec"]["serviceAccountName"] for _, pod in pods(documents)} == {name}
    accounts = of_kind(documents, "ServiceAccount")
    assert bool(accounts) is made
    assert all(each["automountServiceAccountToken"] is False for each in accounts)
