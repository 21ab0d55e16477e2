"""k8s/ matches the chart, builds with kustomize, and contains no password."""

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache

import pytest
import yaml

from busyapi.auth.token_file import parse_token_file
from testkit.chart.pod_security import violations
from testkit.chart.programs import kubectl
from testkit.chart.rendering import (
    ROOT,
    Json,
    find_object,
    object_key_of,
    of_kind,
    parse,
    pods,
    render,
)
from testkit.chart.schemas import VERSIONS, find_schema_error

K8S = ROOT / "k8s"
OVERLAYS = ["local", "production"]
ZONE, PORT = "topology.kubernetes.io/zone", 30080


@cache
def build(path: str) -> list[Json]:
    """Build a folder below k8s/ with kustomize."""
    command = [str(kubectl()), "kustomize", str(K8S / path)]
    process = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return parse(process.stdout)


def make_secrets(**environment: str) -> dict[str, Json]:
    """Return the Secrets that k8s/secret prints, by name."""
    process = subprocess.run(
        [str(K8S / "secret")],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
        env={"PATH": os.environ["PATH"]} | environment,
    )
    return {document["metadata"]["name"]: document for document in parse(process.stdout)}


def make_secret(**environment: str) -> Json:
    """Return the Secret with the passwords of Valkey."""
    return make_secrets(**environment)["busyapi-valkey"]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_overlay_is_valid_for_kubernetes(overlay: str, version: str) -> None:
    wrong = {
        object_key_of(document): find_schema_error(document, version)
        for document in build(f"overlays/{overlay}")
    }
    assert not any(wrong.values()), wrong


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_is_restricted_and_in_its_namespace(overlay: str) -> None:
    documents = build(f"overlays/{overlay}")
    assert [violations(pod["spec"]) for _, pod in pods(documents)] == [[], [], []]
    namespace = find_object(documents, "Namespace", "busyapi")["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [document for document in documents if document["kind"] != "Namespace"]
    assert {document["metadata"]["namespace"] for document in others} == {"busyapi"}


def mounted_secrets(documents: list[Json]) -> Iterator[str]:
    """Yield the names of the Secrets that pods mount, including projected ones."""
    for _, pod in pods(documents):
        for volume in pod["spec"]["volumes"]:
            for source in (volume, *(volume.get("projected") or {}).get("sources", [])):
                if secret := source.get("secret"):
                    yield secret.get("secretName") or secret["name"]


@pytest.mark.parametrize("path", ["base", *(f"overlays/{overlay}" for overlay in OVERLAYS)])
def test_no_password_is_in_the_repository(path: str) -> None:
    documents = build(path)
    assert of_kind(documents, "Secret") == []
    names = {"busyapi-archive", "busyapi-tokens", "busyapi-valkey"}
    assert set(mounted_secrets(documents)) == names


@pytest.mark.parametrize("path", ["base", *(f"overlays/{overlay}" for overlay in OVERLAYS)])
def test_pods_refer_to_the_generated_config_maps(path: str) -> None:
    documents = build(path)
    generated = {config_map["metadata"]["name"] for config_map in of_kind(documents, "ConfigMap")}
    used = set(re.findall(r"'config[Mm]ap(?:Ref)?': \{'name': '([^']+)'", str(documents)))
    used |= set(re.findall(r"'configMap': \{[^}]*?'name': '([^']+)'", str(documents)))
    assert used == generated
    assert all(re.fullmatch(r"busyapi(-valkey)?-[a-z0-9]{10}", name) for name in generated)


def test_base_has_all_objects_of_the_chart_except_the_secret() -> None:
    base = {re.sub(r"-[a-z0-9]{10}$", "", object_key_of(document)) for document in build("base")}
    chart = {
        object_key_of(document)
        for document in render({"tests": {"enabled": False}, "networkPolicy": {"enabled": False}})
    }
    assert chart - base == {"Secret/busyapi-archive", "Secret/busyapi-valkey"}
    assert base <= chart
    assert "Helm" not in str(build("base"))


def test_local_overlay_has_no_autoscaler_and_uses_the_port_of_kind() -> None:
    documents = build("overlays/local")
    assert not of_kind(documents, "HorizontalPodAutoscaler")
    assert not of_kind(documents, "PodDisruptionBudget")
    (port,) = find_object(documents, "Service", "busyapi")["spec"]["ports"]
    assert port["nodePort"] == PORT
    assert read_settings(documents)["BUSYAPI_ANONYMOUS"] == "write,read"
    config = yaml.safe_load((K8S / "kind" / "cluster.yaml").read_text())
    first, *workers = config["nodes"]
    assert first["extraPortMappings"][0]["containerPort"] == PORT
    assert first["extraPortMappings"][0]["listenAddress"] == "127.0.0.1"
    assert len({worker["labels"][ZONE] for worker in workers}) == 2


def read_settings(documents: list[Json]) -> dict[str, str]:
    """Return the settings of the service in an overlay."""
    (config_map,) = (
        document
        for document in of_kind(documents, "ConfigMap")
        if "valkey" not in object_key_of(document)
    )
    data: dict[str, str] = config_map["data"]
    return data


def test_production_overlay_matches_its_comments() -> None:
    documents = build("overlays/production")
    kinds = {document["kind"] for document in documents}
    assert kinds >= {"Ingress", "NetworkPolicy", "ServiceMonitor", "PodDisruptionBudget"}
    metrics = find_object(documents, "HorizontalPodAutoscaler", "busyapi")["spec"]["metrics"]
    assert [metric["type"] for metric in metrics] == ["Resource", "Pods"]
    (rule,) = find_object(documents, "Ingress", "busyapi")["spec"]["rules"]
    assert rule["host"] == "usages.example.org"
    settings = read_settings(documents)
    assert settings["BUSYAPI_RETENTION_DAYS"] == "400"
    assert settings["BUSYAPI_PARTITIONS"] == "1"
    assert settings["BUSYAPI_ANONYMOUS"] == ""


def test_secret_is_new_each_time_and_has_the_rights_of_the_chart() -> None:
    first, second = (make_secret()["stringData"] for _ in range(2))
    assert len({first["api-password"], first["flusher-password"], second["api-password"]}) == 3
    assert len(first["api-password"]) == 32
    rights = (K8S / "base" / "users.acl").read_text()
    for role in ("api", "flusher"):
        digest = hashlib.sha256(first[f"{role}-password"].encode()).hexdigest()
        rights = rights.replace(f"{role.upper()}_DIGEST", digest)
    assert first["users.acl"] == rights
    assert "DIGEST" not in rights


def test_secret_for_credentials_has_none_and_is_a_valid_file() -> None:
    data = make_secrets()["busyapi-tokens"]["stringData"]
    assert not parse_token_file(data["tokens"].encode()).tokens


def test_secret_of_the_flushers_is_new_each_time() -> None:
    first, second = (make_secrets()["busyapi-archive"]["stringData"] for _ in range(2))
    assert first["secret"] != second["secret"]
    assert len(first["secret"]) == 32
    given = make_secrets(ARCHIVE_SECRET="three")["busyapi-archive"]
    assert given["stringData"] == {"secret": "three"}


def test_given_passwords_are_used() -> None:
    data = make_secret(API_PASSWORD="one", FLUSHER_PASSWORD="two")["stringData"]
    assert (data["api-password"], data["flusher-password"]) == ("one", "two")


def test_every_folder_has_a_readme_whose_links_and_paths_exist() -> None:
    for folder in (K8S, *(path for path in K8S.iterdir() if path.is_dir())):
        if folder.name == "__pycache__":
            continue
        readme = folder / "README.md"
        for target in re.findall(r"\]\(((?!http)[^)#]+)\)", readme.read_text()):
            assert (folder / target).exists(), f"{readme}: {target}"
        for path in re.findall(r"\bk8s/[\w./-]*\w", readme.read_text()):
            assert (ROOT / path).exists(), f"{readme}: {path}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_valkeys_command_names_a_file_that_it_has(overlay: str) -> None:
    documents = build(f"overlays/{overlay}")
    (config,) = [
        entry
        for entry in of_kind(documents, "ConfigMap")
        if "busyapi-valkey" in entry["metadata"]["name"]
    ]
    (valkey,) = [pod for name, pod in pods(documents) if name == "StatefulSet/busyapi-valkey"]
    command = valkey["spec"]["containers"][0]["command"]
    assert command[-1].removeprefix("/etc/valkey/") in config["data"]
