"""No upgrade from a released chart or by a changed value touches an immutable field."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import helm_python
import pytest

from testkit.chart.immutable_fields import IMMUTABLE_DATA, conflicts
from testkit.chart.rendering import (
    CHART,
    MODES,
    OPEN,
    Json,
    load_chart,
    mode_name,
    render,
    replace_at,
    values_of,
)
from tools.chart_release import find_archives, pack_release

STATEFUL_SET: Json = {
    "kind": "StatefulSet",
    "metadata": {"name": "s"},
    "spec": {
        "replicas": 1,
        "serviceName": "s",
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"spec": {}},
        "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"accessModes": ["x"]}}],
    },
}
OTHERS: dict[str, Json] = {
    "Deployment": {"spec": {"selector": {"matchLabels": {"a": "b"}}}},
    "Service": {"spec": {"clusterIP": "None", "ports": []}},
    "Secret": {"type": "Opaque"},
    "RoleBinding": {"roleRef": {"name": "r"}},
    "PersistentVolumeClaim": {"spec": {"accessModes": ["x"], "storageClassName": "s"}},
}
CHANGES = [
    ("spec.serviceName", "t"),
    ("spec.podManagementPolicy", "Parallel"),
    ("spec.selector", {"matchLabels": {"a": "c"}}),
    ("spec.volumeClaimTemplates", []),
    (
        "spec.volumeClaimTemplates",
        [{"metadata": {"name": "d", "labels": {"v": "2"}}, "spec": {"accessModes": ["x"]}}],
    ),
]
# Changes that users may make to a running release.
ALLOWED: dict[str, Json] = {
    "another image": {"image": {"tag": "next"}, "valkey": {"image": {"tag": "9.0"}}},
    "a label": {"commonLabels": {"team": "inhalers"}, "podLabels": {"a": "b"}},
    "other resources": {"flusher": {"resources": {"requests": {"cpu": "1"}}}},
    "another service": OPEN | {"service": {"type": "NodePort"}},
    "another scaler": {"autoscaling": {"enabled": False}, "replicaCount": 5},
}


@pytest.mark.parametrize(("path", "value"), CHANGES)
def test_change_of_a_fixed_field_of_a_stateful_set_is_found(path: str, value: Any) -> None:
    new = replace_at(STATEFUL_SET, path, value)
    assert conflicts([STATEFUL_SET], [new]) == [f"StatefulSet/s: {path}"]


def test_change_of_a_mutable_field_of_a_stateful_set_is_allowed() -> None:
    new = replace_at(
        replace_at(STATEFUL_SET, "spec.replicas", 4), "spec.template", {"spec": {"a": 1}}
    )
    assert (
        conflicts([STATEFUL_SET], [replace_at(new, "spec.podManagementPolicy", "OrderedReady")])
        == []
    )


@pytest.mark.parametrize("kind", OTHERS)
def test_change_in_another_kind_is_found(kind: str) -> None:
    old = {"kind": kind, "metadata": {"name": "o"}} | OTHERS[kind]
    first = next(iter(OTHERS[kind]))
    new = replace_at(old, first, {"clusterIP": "", "name": "z"} if first != "type" else "other")
    assert conflicts([old], [new])


def test_changed_data_of_an_immutable_config_map_is_found() -> None:
    old = {"kind": "ConfigMap", "metadata": {"name": "c"}, "immutable": True, "data": {"a": "1"}}
    assert conflicts([old], [old | {"data": {}}]) == [f"ConfigMap/c: {IMMUTABLE_DATA}"]


def test_hooks_and_new_objects_are_allowed() -> None:
    hook = replace_at(STATEFUL_SET, "metadata.annotations", {"helm.sh/hook": "test"})
    assert conflicts([hook], [replace_at(hook, "spec.serviceName", "t")]) == []
    assert conflicts([], [STATEFUL_SET]) == []


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_new_chart_version_changes_no_immutable_field(mode: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(CHART, tmp_path / "busyapi"))
    metadata = (other / "Chart.yaml").read_text()
    version = load_chart(CHART).version
    (other / "Chart.yaml").write_text(metadata.replace(version, "0.0.1"))
    values = values_of(mode)
    assert conflicts(render(values, chart=other), render(values)) == []


@pytest.mark.parametrize("change", ALLOWED)
def test_allowed_value_changes_no_immutable_field(change: str) -> None:
    assert conflicts(render(), render(ALLOWED[change], upgrade=True)) == []


def test_upgrade_from_each_released_chart_changes_no_immutable_field() -> None:
    for archive in find_archives():
        conflicts_by_mode = find_conflicts(archive)
        assert "default" in conflicts_by_mode
        assert not any(conflicts_by_mode.values()), f"{archive.name}: {conflicts_by_mode}"


def test_selector_that_changed_since_a_release_is_found(tmp_path: Path) -> None:
    older = Path(shutil.copytree(CHART, tmp_path / "older"))
    helpers = older / "templates" / "_helpers.tpl"
    label = "app.kubernetes.io/instance:"
    assert label in helpers.read_text()
    helpers.write_text(helpers.read_text().replace(label, f"older: yes-it-was\n{label}"))
    conflicts_by_mode = find_conflicts(pack_release(older, tmp_path))["default"]
    assert "Deployment/busyapi: spec.selector" in conflicts_by_mode


def test_released_version_is_not_packed_again(tmp_path: Path) -> None:
    first = pack_release(folder=tmp_path).read_bytes()
    with pytest.raises(FileExistsError, match="change the version"):
        pack_release(folder=tmp_path)
    (archive,) = tmp_path.iterdir()
    assert archive.read_bytes() == first


def find_conflicts(archive: Path) -> dict[str, list[str]]:
    """Return the conflicts of an upgrade in each mode that the old chart supports."""
    conflicts_by_mode = {}
    for mode in MODES:
        values = values_of(mode)
        with suppress(helm_python.HelmError):
            old = render(values, chart=archive)
            conflicts_by_mode[mode_name(mode)] = conflicts(old, render(values, upgrade=True))
    return conflicts_by_mode
