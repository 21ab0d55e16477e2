"""Renders of the chart as objects, and the few ways in which the tests look at them."""

import json
import subprocess
import tempfile
from collections.abc import Hashable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

from testkit.chart.programs import helm3

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "busyapi"
MODES = sorted(CHART.glob("ci/*-values.yaml"))
NAMESPACE = "usages"
NOTES = "busyapi/templates/NOTES.txt"
TEMPLATED = {"Deployment", "StatefulSet", "DaemonSet", "Job"}


def mode_name(path: Path) -> str:
    """`ci/keda-values.yaml` is keda."""
    return path.name.removesuffix("-values.yaml")


class Strict(yaml.CSafeLoader):
    """Refuses a mapping with the same key twice, of which YAML readers silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        """As the base does, after a look at the keys."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


def parse(text: str) -> list[Json]:
    """The objects of a YAML stream; comments alone are none."""
    return [each for each in yaml.load_all(text, Strict) if each]


def values_of(path: Path) -> Json:
    """A values file."""
    return helm_python.values_from_yaml(path.read_text())


@cache
def loaded(chart: Path) -> helm_python.Chart:
    """A chart, read once; what a test changes, it changes in a copy elsewhere."""
    return helm_python.Chart.load(chart)


@cache
def _texts(chart: Path, values: str, options: str) -> dict[str, str]:
    return loaded(chart).render(json.loads(values), **json.loads(options))


def texts(
    values: Json | None = None,
    *,
    release: str = "busyapi",
    chart: Path = CHART,
    upgrade: bool = False,
) -> dict[str, str]:
    """What Helm 4 makes of each template."""
    options = {
        "name": release,
        "namespace": NAMESPACE,
        "is_install": not upgrade,
        "is_upgrade": upgrade,
    }
    return _texts(chart, json.dumps(values or {}, sort_keys=True), json.dumps(options))


def render(values: Json | None = None, **options: Any) -> list[Json]:
    """The objects that Helm 4 makes; options as for `texts`."""
    return [
        document
        for name, text in texts(values, **options).items()
        if name.endswith(".yaml")
        for document in parse(text)
    ]


def notes(values: Json | None = None, **options: Any) -> str:
    """What `helm install` tells."""
    return texts(values, **options)[NOTES]


def render3(values: Json | None = None, *, release: str = "busyapi") -> list[Json]:
    """The objects that Helm 3 makes."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values or {}, file)
        file.flush()
        command = [str(helm3()), "template", release, str(CHART), "-n", NAMESPACE, "-f", file.name]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return parse(done.stdout)


def key(document: Json) -> str:
    """Kind and name, for messages and comparison."""
    return f"{document['kind']}/{document['metadata']['name']}"


def of_kind(documents: list[Json], kind: str) -> list[Json]:
    """All of one kind."""
    return [each for each in documents if each["kind"] == kind]


def one(documents: list[Json], kind: str, name: str) -> Json:
    """The one of this kind and name; anything else is an error."""
    (found,) = (each for each in documents if key(each) == f"{kind}/{name}")
    return found


def pods(documents: list[Json]) -> Iterator[tuple[str, Json]]:
    """Every pod that the objects make: what they are called, and the pod (metadata, spec)."""
    for each in documents:
        if each["kind"] in TEMPLATED:
            yield key(each), each["spec"]["template"]
        elif each["kind"] == "Pod":
            yield key(each), each


def containers(pod: Json) -> list[Json]:
    """A pod's containers, those that only begin it too."""
    spec = pod["spec"]
    return [*(spec.get("initContainers") or []), *spec["containers"]]


def environment(container: Json) -> dict[str, Any]:
    """Name to value, or to where the value comes from."""
    return {
        each["name"]: each.get("value", each.get("valueFrom"))
        for each in container.get("env") or []
    }


def strings(value: Any) -> Iterator[str]:
    """Every string in it, at any depth, keys too."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield str(name)
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)
    elif isinstance(value, str):
        yield value
