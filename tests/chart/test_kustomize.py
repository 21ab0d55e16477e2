"""k8s/ is what the chart makes, builds with kustomize, and holds no password."""

import hashlib
import os
import re
import subprocess
from functools import cache

import pytest
import yaml

from testkit.chart.pod_security import violations
from testkit.chart.programs import kubectl
from testkit.chart.rendering import ROOT, Json, key, of_kind, one, parse, pods, render
from testkit.chart.schemas import VERSIONS, problem

K8S = ROOT / "k8s"
OVERLAYS = ["local", "production"]
ZONE, PORT = "topology.kubernetes.io/zone", 30080


@cache
def built(path: str) -> list[Json]:
    """What kustomize makes of a folder below k8s/."""
    command = [str(kubectl()), "kustomize", str(K8S / path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return parse(done.stdout)


def secret(**environment: str) -> Json:
    """What k8s/secret prints."""
    done = subprocess.run(
        [str(K8S / "secret")],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
        env={"PATH": os.environ["PATH"]} | environment,
    )
    (found,) = parse(done.stdout)
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_an_overlay_is_what_kubernetes_takes(overlay: str, version: str) -> None:
    wrong = {key(each): problem(each, version) for each in built(f"overlays/{overlay}")}
    assert not any(wrong.values()), wrong


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_restricted_and_in_its_namespace(overlay: str) -> None:
    documents = built(f"overlays/{overlay}")
    assert [violations(pod["spec"]) for _, pod in pods(documents)] == [[], [], []]
    namespace = one(documents, "Namespace", "busyapi")["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [each for each in documents if each["kind"] != "Namespace"]
    assert {each["metadata"]["namespace"] for each in others} == {"busyapi"}


@pytest.mark.parametrize("path", ["base", *(f"overlays/{each}" for each in OVERLAYS)])
def test_no_password_is_in_the_repository(path: str) -> None:
    documents = built(path)
    assert of_kind(documents, "Secret") == []
    mounted = re.findall(r"'secretName': '([^']+)'", str([*pods(documents)]))
    assert set(mounted) == {"busyapi-valkey"}


@pytest.mark.parametrize("path", ["base", *(f"overlays/{each}" for each in OVERLAYS)])
def test_pods_refer_to_the_generated_config_maps(path: str) -> None:
    documents = built(path)
    made = {each["metadata"]["name"] for each in of_kind(documents, "ConfigMap")}
    used = set(re.findall(r"'config[Mm]ap(?:Ref)?': \{'name': '([^']+)'", str(documents)))
    used |= set(re.findall(r"'configMap': \{[^}]*?'name': '([^']+)'", str(documents)))
    assert used == made
    assert all(re.fullmatch(r"busyapi(-valkey)?-[a-z0-9]{10}", name) for name in made)


def test_the_base_has_what_the_chart_has_but_for_helm_and_the_secret() -> None:
    ours = {re.sub(r"-[a-z0-9]{10}$", "", key(each)) for each in built("base")}
    theirs = {key(each) for each in render({"tests": {"enabled": False}})}
    assert theirs - ours == {"Secret/busyapi-valkey"}
    assert ours <= theirs
    assert "Helm" not in str(built("base"))


def test_nothing_scales_the_api_on_a_laptop_and_it_is_at_the_port_of_kind() -> None:
    documents = built("overlays/local")
    assert not of_kind(documents, "HorizontalPodAutoscaler")
    assert not of_kind(documents, "PodDisruptionBudget")
    (port,) = one(documents, "Service", "busyapi")["spec"]["ports"]
    assert port["nodePort"] == PORT
    config = yaml.safe_load((K8S / "kind" / "cluster.yaml").read_text())
    first, *workers = config["nodes"]
    assert first["extraPortMappings"][0]["containerPort"] == PORT
    assert first["extraPortMappings"][0]["listenAddress"] == "127.0.0.1"
    assert len({each["labels"][ZONE] for each in workers}) == 2


def test_production_has_what_its_comments_say() -> None:
    documents = built("overlays/production")
    kinds = {each["kind"] for each in documents}
    assert kinds >= {"Ingress", "NetworkPolicy", "ServiceMonitor", "PodDisruptionBudget"}
    metrics = one(documents, "HorizontalPodAutoscaler", "busyapi")["spec"]["metrics"]
    assert [each["type"] for each in metrics] == ["Resource", "Pods"]
    (rule,) = one(documents, "Ingress", "busyapi")["spec"]["rules"]
    assert rule["host"] == "usages.example.org"
    (settings,) = (e for e in of_kind(documents, "ConfigMap") if "valkey" not in key(e))
    assert settings["data"]["BUSYAPI_RETENTION_DAYS"] == "400"
    assert settings["data"]["BUSYAPI_PARTITIONS"] == "1"


def test_a_new_secret_each_time_with_the_rights_of_the_chart() -> None:
    first, second = (secret()["stringData"] for _ in range(2))
    assert len({first["api-password"], first["flusher-password"], second["api-password"]}) == 3
    assert len(first["api-password"]) == 32
    rights = (K8S / "base" / "users.acl").read_text()
    for role in ("api", "flusher"):
        digest = hashlib.sha256(first[f"{role}-password"].encode()).hexdigest()
        rights = rights.replace(f"{role.upper()}_DIGEST", digest)
    assert first["users.acl"] == rights
    assert "DIGEST" not in rights


def test_passwords_that_are_said_are_kept() -> None:
    data = secret(API_PASSWORD="one", FLUSHER_PASSWORD="two")["stringData"]
    assert (data["api-password"], data["flusher-password"]) == ("one", "two")


def test_every_folder_has_a_readme_and_every_link_and_path_in_one_is_there() -> None:
    for folder in (K8S, *(each for each in K8S.iterdir() if each.is_dir())):
        if folder.name == "__pycache__":
            continue
        readme = folder / "README.md"
        for target in re.findall(r"\]\(((?!http)[^)#]+)\)", readme.read_text()):
            assert (folder / target).exists(), f"{readme}: {target}"
        for path in re.findall(r"\bk8s/[\w./-]*\w", readme.read_text()):
            assert (ROOT / path).exists(), f"{readme}: {path}"
