"""Make what is below k8s/ for those without Helm: the chart's objects, as kustomize wants them.

    python k8s/render.py            # write them
    python k8s/render.py --check    # exit 1 when one is stale

Settings become files for kustomize's generators, which give a ConfigMap another name for other
contents; so pods are rolled out by that, and the chart's checksums are left out. No password is
rendered: k8s/secret makes them.
"""
# ruff: noqa: INP001 - a script, in no package

import argparse
import re
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import helm_python
import yaml

Json = dict[str, Any]

K8S = Path(__file__).parent
CHART = K8S.parent / "charts" / "busyapi"
NAME = "busyapi"
HEAD = "# Made by k8s/render.py from charts/busyapi. Change it there, or patch it in an overlay.\n"
HEAD_RULES = "# Made by k8s/render.py from charts/busyapi/files/rules.yaml. Change them there.\n"
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


def rendered(values: Json) -> list[Json]:
    """The chart's objects without Helm's marks, in no namespace yet."""
    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render(values, name=NAME, namespace=NAME)
    manifests = [text for name, text in sorted(texts.items()) if name.endswith(".yaml")]
    documents = [each for text in manifests for each in yaml.safe_load_all(text) if each]
    for each in documents:
        clean(each)
    return documents


def clean(document: Json) -> None:
    """Take out what is Helm's or the generators'."""
    del document["metadata"]["namespace"]
    for label in HELMS:
        del document["metadata"]["labels"][label]
    template = (document.get("spec") or {}).get("template") or {}
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    for name in [each for each in annotations if each.startswith("checksum/")]:
        del annotations[name]
    if template and not annotations:
        template["metadata"].pop("annotations", None)


def key(document: Json) -> tuple[str, str]:
    """What tells an object from another."""
    return document["kind"], document["metadata"]["name"]


def dump(documents: list[Json]) -> str:
    """A file of objects."""
    return HEAD + yaml.safe_dump_all(documents, sort_keys=False, width=100)


def base() -> dict[str, str]:
    """Files of the base: a role each, and what the generators read."""
    files = {}
    documents = rendered(BASE)
    maps = {each["metadata"]["name"]: each["data"] for each in documents if is_map(each)}
    for role in ("api", "flusher", "valkey", "serviceaccount"):
        its = [each for each in documents if each["metadata"]["labels"][COMPONENT] == role]
        files[f"base/{role}.yaml"] = dump([each for each in its if not is_map(each)])
    lines = [f"{name}={value}" for name, value in maps[NAME].items()]
    files["base/config.env"] = HEAD + "\n".join([*lines, ""])
    files["base/valkey.conf"] = maps[f"{NAME}-valkey"]["valkey.conf"].rstrip("\n") + "\n"
    return files


def is_map(document: Json) -> bool:
    """Is it a ConfigMap?"""
    return bool(document["kind"] == "ConfigMap")


def rights() -> str:
    """Who may do what in Valkey, with a place for each password's digest."""
    (secret,) = (each for each in rendered({}) if key(each) == ("Secret", f"{NAME}-valkey"))
    acl = b64decode(secret["data"]["users.acl"]).decode()
    return re.sub(
        r"^(user (\w+) on #)[0-9a-f]{64}",
        lambda match: f"{match[1]}{match[2].upper()}_DIGEST",
        acl,
        flags=re.MULTILINE,
    )


def extra(name: str) -> str:
    """What a switch of the chart adds to the base."""
    kind, values = EXTRAS[name]
    plain = {key(each) for each in rendered(BASE)}
    added = [each for each in rendered(BASE | values) if key(each) not in plain]
    assert any(each["kind"] == kind for each in added)  # noqa: S101 - ours, not a user's
    return dump(added)


def rules() -> str:
    """The rules for every release that a Prometheus scrapes.

    Series of busyapi need no choosing, and keep their namespace and release; only where names are
    anyone's it is by a name with busyapi in it.
    """
    text = (CHART / "files" / "rules.yaml").read_text(encoding="utf-8")
    text = text[text.index("groups:") :]
    for old, new in (
        ('up{namespace="NAMESPACE", release="RELEASE"}', 'up{job=~".*busyapi.*"}'),
        ('{namespace="NAMESPACE", release="RELEASE"}', ""),
        ('namespace="NAMESPACE", release="RELEASE", ', ""),
        ('namespace="NAMESPACE", ', ""),
        ("FULLNAME", ".*busyapi"),
        ("RUNBOOKS/", "docs/runbooks/"),
    ):
        assert old in text, old  # noqa: S101 - ours, not a user's
        text = text.replace(old, new)
    return HEAD_RULES + text


def files() -> dict[str, str]:
    """Every file that is made, by its path below k8s/."""
    return {
        **base(),
        "base/users.acl": rights(),
        **{f"components/{name}/{name}.yaml": extra(name) for name in EXTRAS},
        "observability/rules.yaml": rules(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Write or check; give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when stale")
    parser.add_argument("--into", type=Path, default=K8S, help="default: %(default)s")
    options = parser.parse_args(arguments)
    stale = []
    for name, text in files().items():
        path = options.into / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not options.check:
                path.write_text(text, encoding="utf-8")
    if options.check and stale:
        sys.stderr.write(f"stale: {', '.join(stale)}: run make k8s\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
