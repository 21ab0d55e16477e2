"""The cluster of a run is found, and a run without one says what to do."""

import json
import sys
from pathlib import Path

import pytest

from e2e import __main__, images, target
from e2e.release import merge_values
from e2e.scenarios.lifetime import _parse_version


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("E2E_LOAD_IMAGE", raising=False)
    monkeypatch.setattr(target, "PROGRAM", "")


@pytest.mark.usefixtures("nowhere")
def test_a_run_without_a_cluster_ends_with_2_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["e2e"])
    assert __main__.main() == 2
    assert "KUBECONFIG=" in capsys.readouterr().err


@pytest.mark.usefixtures("nowhere")
def test_another_cluster_is_never_treated_as_this_machines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("E2E_LOAD_IMAGE", "kind load image-archive --name busyapi")
    cluster = target.find()
    assert cluster.load_command == ("kind", "load", "image-archive", "--name", "busyapi")
    assert cluster.program is None
    assert cluster.pid("node-2-kubelet") is None
    with pytest.raises(target.NoCluster):
        cluster.cluster("keda")


def test_an_image_that_the_cluster_has_is_not_built_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(images, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(images, "digest_sources", lambda: "v1")
    monkeypatch.setattr(images, "build", lambda _, tag, __: calls.append(f"build {tag}"))
    monkeypatch.setattr(images, "save", lambda tag, _: calls.append(f"save {tag}"))
    cluster = target.Target(tmp_path / "config", ("true",), None)
    assert images.load_busyapi(cluster, "one", "busyapi:1")
    assert not images.load_busyapi(cluster, "one", "busyapi:1")
    assert images.load_busyapi(cluster, "another", "busyapi:1")
    monkeypatch.setattr(images, "digest_sources", lambda: "v2")
    assert images.load_busyapi(cluster, "one", "busyapi:1")
    assert calls == ["build busyapi:1", "save busyapi:1"] * 3
    assert json.loads((tmp_path / "stamp").read_text()) == {
        "one": "busyapi:1 v2",
        "another": "busyapi:1 v1",
    }


def test_every_source_of_the_image_counts() -> None:
    for name in (*images.SOURCES, images.LOCK):
        assert (target.ROOT / name).exists()
    assert images.digest_sources() == images.digest_sources()


def test_values_are_merged_as_helm_does() -> None:
    base = {"a": {"b": 1, "c": [1]}, "d": 2}
    assert merge_values(base, {"a": {"c": [2]}, "d": {"e": 3}}) == {
        "a": {"b": 1, "c": [2]},
        "d": {"e": 3},
    }
    assert base == {"a": {"b": 1, "c": [1]}, "d": 2}


def test_versions_are_compared_as_numbers() -> None:
    assert _parse_version("busyapi-0.10.0") > _parse_version("0.9.1")
