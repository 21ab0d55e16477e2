"""Generate k8s/, for users without Helm: the chart's objects for kustomize.

Settings become files for kustomize's generators. These change a ConfigMap's name with its content,
which rolls out the pods, so the chart's checksums are left out. No password is rendered: k8s/secret
makes them.
"""

import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import helm_python
import yaml

Json = dict[str, Any]

CHART = "charts/busyapi"
OWNED = ""
NAME = "busyapi"
HEAD = "# Generated from charts/busyapi by `make generate`. Change it there or patch an overlay.\n"
HEAD_RULES = (
    "# Generated from charts/busyapi/files/rules.yaml by `make generate`. Change them there.\n"
)
OPTIONAL = """
  # Only for traffic that is about the same every day: the chart leaves this group out unless
  # metrics.prometheusRule.trafficGone.enabled is true.
  - name: busyapi-traffic"""
PROBE = """
  # Only with the chart's Probe: the chart leaves this group out unless metrics.probe.enabled
  # is true."""
HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")
COMPONENT = "app.kubernetes.io/component"

BASE: Json = {
    "valkey": {"auth": {"existingSecret": f"{NAME}-valkey"}},
    "flusher": {"auth": {"existingSecret": f"{NAME}-archive"}},
    "auth": {"existingSecret": f"{NAME}-tokens"},
    "tests": {"enabled": False},
    "networkPolicy": {"enabled": False},
}
EXTRAS: dict[str, tuple[str, Json]] = {
    "ingress": ("Ingress", {"ingress": {"enabled": True, "hosts": [{"host": ""}]}}),
    "network-policy": ("NetworkPolicy", {"networkPolicy": {"enabled": True}}),
    "service-monitor": ("ServiceMonitor", {"metrics": {"serviceMonitor": {"enabled": True}}}),
}


def render_objects(chart: Path, values: Json) -> list[Json]:
    """Return the chart's objects without Helm's labels and without a namespace."""
    with helm_python.Chart.load(chart) as loaded:
        texts = loaded.render(values, name=NAME, namespace=NAME)
    manifests = [text for name, text in sorted(texts.items()) if name.endswith(".yaml")]
    documents = [entry for text in manifests for entry in yaml.safe_load_all(text) if entry]
    for document in documents:
        strip_marks(document)
    return documents


def strip_marks(document: Json) -> None:
    """Remove the namespace, Helm's labels and the checksums."""
    del document["metadata"]["namespace"]
    for label in HELM_LABELS:
        del document["metadata"]["labels"][label]
    template = (document.get("spec") or {}).get("template") or {}
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    for name in [annotation for annotation in annotations if annotation.startswith("checksum/")]:
        del annotations[name]
    if template and not annotations:
        template["metadata"].pop("annotations", None)


def object_key(document: Json) -> tuple[str, str]:
    """Return the kind and name that identify an object."""
    return document["kind"], document["metadata"]["name"]


def dump_objects(documents: list[Json]) -> str:
    """Return a file of objects."""
    return HEAD + yaml.safe_dump_all(documents, sort_keys=False, width=100)


def render_base(chart: Path) -> dict[str, str]:
    """Return the files of the base: one for each role, and those that the generators read."""
    files = {}
    documents = render_objects(chart, BASE)
    maps = {
        document["metadata"]["name"]: document["data"]
        for document in documents
        if is_config_map(document)
    }
    for role in ("api", "flusher", "valkey", "serviceaccount"):
        own = [
            document for document in documents if document["metadata"]["labels"][COMPONENT] == role
        ]
        files[f"base/{role}.yaml"] = dump_objects(
            [document for document in own if not is_config_map(document)]
        )
    lines = [f"{name}={value}" for name, value in maps[NAME].items()]
    files["base/config.env"] = HEAD + "\n".join([*lines, ""])
    for name, text in maps[f"{NAME}-valkey"].items():
        files[f"base/{name}"] = text.rstrip("\n") + "\n"
    return files


def is_config_map(document: Json) -> bool:
    """Return whether an object is a ConfigMap."""
    return bool(document["kind"] == "ConfigMap")


def render_acl(chart: Path) -> str:
    """Return Valkey's ACL, with a placeholder for each password's digest."""
    (secret,) = (
        entry
        for entry in render_objects(chart, {})
        if object_key(entry) == ("Secret", f"{NAME}-valkey")
    )
    acl = b64decode(secret["data"]["users.acl"]).decode()
    return re.sub(
        r"^(user (\w+) on #)[0-9a-f]{64}",
        lambda match: f"{match[1]}{match[2].upper()}_DIGEST",
        acl,
        flags=re.MULTILINE,
    )


def render_component(chart: Path, name: str) -> str:
    """Return the objects that a switch of the chart adds to the base."""
    kind, values = EXTRAS[name]
    plain = {object_key(entry) for entry in render_objects(chart, BASE)}
    added = [
        entry for entry in render_objects(chart, BASE | values) if object_key(entry) not in plain
    ]
    assert any(entry["kind"] == kind for entry in added)  # noqa: S101 - the chart decides, no user
    return dump_objects(added)


def render_rules(chart: Path) -> tuple[str, str]:
    """Return the rules for every release that a Prometheus scrapes, and those that are optional.

    busyapi's own series need no selector. Series of other exporters are selected by names that
    contain busyapi.
    """
    text = (chart / "files" / "rules.yaml").read_text(encoding="utf-8")
    text = text[text.index("groups:") :]
    for old, new in (
        ('up{namespace="__NAMESPACE__", release="__RELEASE__"}', 'up{job=~".*busyapi.*"}'),
        ('{namespace="__NAMESPACE__", release="__RELEASE__"}', ""),
        ('namespace="__NAMESPACE__", release="__RELEASE__", ', ""),
        ('namespace="__NAMESPACE__", ', ""),
        ("__FULLNAME__", ".*busyapi"),
        ("__RUNBOOKS__/", "docs/runbooks/"),
    ):
        assert old in text, old  # noqa: S101 - the chart decides, no user
        text = text.replace(old, new)
    # absent() cannot name a release there, and would fire wherever no API is probed.
    text, _ = text.split(PROBE)
    always, optional = text.split(OPTIONAL)
    return HEAD_RULES + always, f"{HEAD_RULES}groups:\n  - name: busyapi-traffic{optional}"


def render_files(root: Path) -> dict[str, str]:
    """Return every generated file by its path below the repository."""
    chart = root / CHART
    always, optional = render_rules(chart)
    texts = {
        **render_base(chart),
        "base/users.acl": render_acl(chart),
        **{f"components/{name}/{name}.yaml": render_component(chart, name) for name in EXTRAS},
        "observability/rules.yaml": always,
        "observability/rules-traffic.yaml": optional,
    }
    return {f"k8s/{name}": text for name, text in texts.items()}
