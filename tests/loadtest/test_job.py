"""The Job of k8s/loadtest is valid and restricted, and mounts every script at its path."""

import subprocess
from functools import cache

import pytest

from loadtest import k6
from testkit.chart.pod_security import violations
from testkit.chart.programs import kubectl
from testkit.chart.rendering import ROOT, Json, find_object, object_key_of, of_kind, parse
from testkit.chart.schemas import VERSIONS, find_schema_error


@cache
def built() -> list[Json]:
    command = [str(kubectl()), "kustomize", str(ROOT / "k8s" / "loadtest")]
    process = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return parse(process.stdout)


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_it_is_valid_for_kubernetes(version: str) -> None:
    errors = {object_key_of(document): find_schema_error(document, version) for document in built()}
    assert not any(errors.values()), errors


def test_it_is_restricted() -> None:
    pod = find_object(built(), "Job", "loadtest")["spec"]["template"]["spec"]
    assert violations(pod) == []
    (namespace,) = of_kind(built(), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_script_is_mounted_where_it_is_imported_from() -> None:
    maps = {entry["metadata"]["name"]: entry["data"] for entry in of_kind(built(), "ConfigMap")}
    pod = find_object(built(), "Job", "loadtest")["spec"]["template"]["spec"]
    mounted: dict[str, str] = {}
    for source in pod["volumes"][0]["projected"]["sources"]:
        data = maps[source["configMap"]["name"]]
        items = source["configMap"].get("items") or [{"key": n, "path": n} for n in data]
        mounted |= {item["path"]: data[item["key"]] for item in items}
    scripts = {str(path.relative_to(k6.SCRIPTS)): path for path in k6.SCRIPTS.rglob("*.js")}
    assert mounted == {name: path.read_text() for name, path in scripts.items()}


def test_its_settings_are_those_that_the_scripts_read() -> None:
    (settings,) = (e["data"] for e in of_kind(built(), "ConfigMap") if "SCRIPT" in e["data"])
    scripts = "".join(path.read_text() for path in k6.SCRIPTS.rglob("*.js"))
    assert all(f"__ENV.{name}" in scripts for name in settings if name != "SCRIPT")
    assert settings["SCRIPT"] in k6.NAMES
