"""Make what is below k8s/ for those without Helm: the chart's objects, as kustomize wants them.

Settings become files for kustomize's generators, which give a ConfigMap another name for other
contents; so pods are rolled out by that, and the chart's checksums are left out. No password is
rendered: k8s/secret makes them.
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
HELMS = ("helm.sh/chart", "app.kubernetes.io/managed-by")
COMPONENT = "app.kubernetes.io/component"

BASE: Json = {
    "valkey": {"auth": {"existingSecret": f"{NAME}-valkey"}},
    "tests": {"enabled": False},
}
EXTRAS: dict[str, tuple[str, Json]] = {
    "ingress": ("Ingress", {"ingress": {"enabled": True, "hosts": [{"host": ""}]}}),
    "network-policy": ("NetworkPolicy", {"networkPolicy": {"enabled": True}}),
    "service-monitor": ("ServiceMonitor", {"metrics": {"serviceMonitor": {"enabled": True}}}),
}


def rendered(chart: Path, values: Json) -> list[Json]:
    """The chart's objects without Helm's marks, in no namespace yet."""
    with helm_python.Chart.load(chart) as loaded:
        texts = loaded.render(values, name=NAME, namespace=NAME)
    manifests = [text for name, text in sorted(texts.items()) if name.endswith(".yaml")]
    documents = [entry for text in manifests for entry in yaml.safe_load_all(text) if entry]
    for document in documents:
        clean(document)
    return documents


def clean(document: Json) -> None:
    """Take out what is Helm's or the generators'."""
    del document["metadata"]["namespace"]
    for label in HELMS:
        del document["metadata"]["labels"][label]
    template = (document.get("spec") or {}).get("template") or {}
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    for name in [annotation for annotation in annotations if annotation.startswith("checksum/")]:
        del annotations[name]
    if template and not annotations:
        template["metadata"].pop("annotations", None)


def key(document: Json) -> tuple[str, str]:
    """What tells an object from another."""
    return document["kind"], document["metadata"]["name"]


def dump(documents: list[Json]) -> str:
    """A file of objects."""
    return HEAD + yaml.safe_dump_all(documents, sort_keys=False, width=100)


def base(chart: Path) -> dict[str, str]:
    """Files of the base: a role each, and what the generators read."""
    files = {}
    documents = rendered(chart, BASE)
    maps = {
        document["metadata"]["name"]: document["data"] for document in documents if is_map(document)
    }
    for role in ("api", "flusher", "valkey", "serviceaccount"):
        its = [
            document for document in documents if document["metadata"]["labels"][COMPONENT] == role
        ]
        files[f"base/{role}.yaml"] = dump([it for it in its if not is_map(it)])
    lines = [f"{name}={value}" for name, value in maps[NAME].items()]
    files["base/config.env"] = HEAD + "\n".join([*lines, ""])
    files["base/valkey.conf"] = maps[f"{NAME}-valkey"]["valkey.conf"].rstrip("\n") + "\n"
    return files


def is_map(document: Json) -> bool:
    """Is it a ConfigMap?"""
    return bool(document["kind"] == "ConfigMap")


def rights(chart: Path) -> str:
    """Who may do what in Valkey, with a place for each password's digest."""
    (secret,) = (
        entry for entry in rendered(chart, {}) if key(entry) == ("Secret", f"{NAME}-valkey")
    )
    acl = b64decode(secret["data"]["users.acl"]).decode()
    return re.sub(
        r"^(user (\w+) on #)[0-9a-f]{64}",
        lambda match: f"{match[1]}{match[2].upper()}_DIGEST",
        acl,
        flags=re.MULTILINE,
    )


def extra(chart: Path, name: str) -> str:
    """What a switch of the chart adds to the base."""
    kind, values = EXTRAS[name]
    plain = {key(entry) for entry in rendered(chart, BASE)}
    added = [entry for entry in rendered(chart, BASE | values) if key(entry) not in plain]
    assert any(entry["kind"] == kind for entry in added)  # noqa: S101 - ours, not a user's
    return dump(added)


def rules(chart: Path) -> str:
    """The rules for every release that a Prometheus scrapes.

    Series of busyapi need no choosing, and keep their namespace and release; only where names are
    anyone's it is by a name with busyapi in it.
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
        assert old in text, old  # noqa: S101 - ours, not a user's
        text = text.replace(old, new)
    return HEAD_RULES + text


def files(root: Path) -> dict[str, str]:
    """Return every file that is made, by its path below the repository."""
    chart = root / CHART
    made = {
        **base(chart),
        "base/users.acl": rights(chart),
        **{f"components/{name}/{name}.yaml": extra(chart, name) for name in EXTRAS},
        "observability/rules.yaml": rules(chart),
    }
    return {f"k8s/{name}": text for name, text in made.items()}
