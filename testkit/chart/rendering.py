"""Render the chart as objects, and select from them."""

import json
import subprocess
import tempfile
from collections.abc import Hashable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

from busyapi.settings import Settings
from testkit.chart.programs import helm3

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "busyapi"
MODES = sorted(CHART.glob("ci/*-values.yaml"))
NAMESPACE = "usages"
NOTES = "busyapi/templates/NOTES.txt"
OPEN: Json = {"auth": {"allowAnonymousWrites": True, "allowAnonymousReads": True}}
"""Values of an installation that everyone may post to and read from."""
TEMPLATED = {"Deployment", "StatefulSet", "DaemonSet", "Job"}


def mode_name(path: Path) -> str:
    """Return the mode of a values file: keda for `ci/keda-values.yaml`."""
    return path.name.removesuffix("-values.yaml")


class StrictYamlLoader(yaml.CSafeLoader):
    """A loader that rejects duplicate keys, of which YAML readers silently use the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        """Construct a mapping after a check for duplicate keys."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        duplicates = {str(key) for key in keys if keys.count(key) > 1}
        if duplicates:
            raise yaml.constructor.ConstructorError(
                None, None, f"duplicate keys: {duplicates}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def parse(text: str) -> list[Json]:
    """Return the objects of a YAML stream, without documents that only have comments."""
    return [document for document in yaml.load_all(text, StrictYamlLoader) if document]


def values_of(path: Path) -> Json:
    """Read a values file."""
    return helm_python.values_from_yaml(path.read_text())


@cache
def load_chart(chart: Path) -> helm_python.Chart:
    """Load a chart once. A test that changes a chart changes a copy elsewhere."""
    return helm_python.Chart.load(chart)


@cache
def _render_texts(chart: Path, values: str, options: str) -> dict[str, str]:
    return load_chart(chart).render(json.loads(values), **json.loads(options))


def render_texts(
    values: Json | None = None,
    *,
    release: str = "busyapi",
    chart: Path = CHART,
    upgrade: bool = False,
) -> dict[str, str]:
    """Render each template with Helm 4."""
    options = {
        "name": release,
        "namespace": NAMESPACE,
        "is_install": not upgrade,
        "is_upgrade": upgrade,
    }
    return _render_texts(chart, json.dumps(values or {}, sort_keys=True), json.dumps(options))


def render(values: Json | None = None, **options: Any) -> list[Json]:
    """Render the objects with Helm 4, with the options of `render_texts`."""
    return [
        document
        for name, text in render_texts(values, **options).items()
        if name.endswith(".yaml")
        for document in parse(text)
    ]


def render_notes(values: Json | None = None, **options: Any) -> str:
    """Return the notes that `helm install` prints."""
    return render_texts(values, **options)[NOTES]


def render_with_helm3(
    values: Json | None = None, *, release: str = "busyapi", chart: Path = CHART
) -> list[Json]:
    """Render the objects with Helm 3."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values or {}, file)
        file.flush()
        command = [str(helm3()), "template", release, str(chart), "-n", NAMESPACE, "-f", file.name]
        process = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return parse(process.stdout)


def object_key_of(document: Json) -> str:
    """Return kind and name, for messages and comparison."""
    return f"{document['kind']}/{document['metadata']['name']}"


def of_kind(documents: list[Json], kind: str) -> list[Json]:
    """Return all objects of a kind."""
    return [document for document in documents if document["kind"] == kind]


def find_object(documents: list[Json], kind: str, name: str) -> Json:
    """Return the only object of this kind and name."""
    (match,) = (document for document in documents if object_key_of(document) == f"{kind}/{name}")
    return match


def replace_at(document: Json, path: str, value: Any) -> Json:
    """Return a copy with another value at the path; None removes it."""
    copy = parent = deepcopy(document)
    *parents, last = path.split(".")
    for step in parents:
        parent = parent[int(step)] if isinstance(parent, list) else parent[step]
    if value is None:
        del parent[last]
    else:
        parent[last] = value
    return copy


def pods(documents: list[Json]) -> Iterator[tuple[str, Json]]:
    """Yield the name and the pod (metadata, spec) of each object that creates pods."""
    for document in documents:
        if document["kind"] in TEMPLATED:
            yield object_key_of(document), document["spec"]["template"]
        elif document["kind"] == "CronJob":
            yield object_key_of(document), document["spec"]["jobTemplate"]["spec"]["template"]
        elif document["kind"] == "Pod":
            yield object_key_of(document), document


def containers(pod: Json) -> list[Json]:
    """Return the containers of a pod, including init containers."""
    spec = pod["spec"]
    return [*(spec.get("initContainers") or []), *spec["containers"]]


def environment(container: Json) -> dict[str, Any]:
    """Return the value of each variable, or its source."""
    return {
        variable["name"]: variable.get("value", variable.get("valueFrom"))
        for variable in container.get("env") or []
    }


def pod_spec(documents: list[Json], kind: str, name: str) -> Json:
    """Return the spec of the pods of a workload."""
    spec: Json = find_object(documents, kind, name)["spec"]
    if kind in TEMPLATED:
        spec = spec["template"]["spec"]
    return spec


def settings_of(documents: list[Json], kind: str = "Deployment", name: str = "busyapi") -> Settings:
    """Return the settings of a workload's first container, by default of API pods."""
    data = find_object(documents, "ConfigMap", "busyapi")["data"]
    container, *_ = pod_spec(documents, kind, name)["containers"]
    return Settings.from_environment(data | environment(container))


def list_strings(value: Any) -> Iterator[str]:
    """Yield every string at any depth, including keys."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield str(name)
            yield from list_strings(child)
    elif isinstance(value, list):
        for child in value:
            yield from list_strings(child)
    elif isinstance(value, str):
        yield value
