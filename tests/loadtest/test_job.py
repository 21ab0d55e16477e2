"""The Job of k8s/loadtest renders, is restricted, and has every script where it looks for it."""

import subprocess
from functools import cache

import pytest

from loadtest import k6
from testkit.chart.pod_security import violations
from testkit.chart.programs import kubectl
from testkit.chart.rendering import ROOT, Json, key, of_kind, one, parse
from testkit.chart.schemas import VERSIONS, problem


@cache
def built() -> list[Json]:
    command = [str(kubectl()), "kustomize", str(ROOT / "k8s" / "loadtest")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return parse(done.stdout)


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_it_is_what_kubernetes_takes(version: str) -> None:
    wrong = {key(each): problem(each, version) for each in built()}
    assert not any(wrong.values()), wrong


def test_it_is_restricted() -> None:
    pod = one(built(), "Job", "loadtest")["spec"]["template"]["spec"]
    assert violations(pod) == []
    (namespace,) = of_kind(built(), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_script_is_in_it_where_it_is_imported_from() -> None:
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(built(), "ConfigMap")}
    pod = one(built(), "Job", "loadtest")["spec"]["template"]["spec"]
    found: dict[str, str] = {}
    for source in pod["volumes"][0]["projected"]["sources"]:
        data = maps[source["configMap"]["name"]]
        items = source["configMap"].get("items") or [{"key": n, "path": n} for n in data]
        found |= {each["path"]: data[each["key"]] for each in items}
    here = {str(each.relative_to(k6.SCRIPTS)): each for each in k6.SCRIPTS.rglob("*.js")}
    assert found == {name: path.read_text() for name, path in here.items()}


def test_what_it_is_told_is_what_the_scripts_read() -> None:
    (settings,) = (e["data"] for e in of_kind(built(), "ConfigMap") if "SCRIPT" in e["data"])
    scripts = "".join(each.read_text() for each in k6.SCRIPTS.rglob("*.js"))
    assert all(f"__ENV.{name}" in scripts for name in settings if name != "SCRIPT")
    assert settings["SCRIPT"] in k6.NAMES
