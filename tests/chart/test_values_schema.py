"""values.schema.json refuses what is not a value: a typo at any level, a wrong type, a limit."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import helm_python
import pytest

from busyapi.api.cors import cors
from busyapi.errors import ConfigError
from busyapi.settings import Settings
from busyapi.stream.keys import check_prefix
from testkit.chart.rendering import CHART, Json, loaded

TYPO = "enabledd"
# Open on purpose: what is in them is Kubernetes' or another chart's, and checked there.
OPEN = {
    "global",
    "httpRoute.matches[].headers[]",
    "httpRoute.matches[].queryParams[]",
    "httpRoute.filters[]",
    "keda.extraTriggers[]",
    *(
        f"{section}{name}"
        for section in ("", "flusher.", "valkey.")
        for name in (
            "affinity.nodeAffinity",
            "affinity.podAffinity",
            "affinity.podAntiAffinity",
            "extraContainers[]",
            "extraEnv[].valueFrom",
            "extraVolumes[]",
            "resources.claims[]",
        )
        if not (section == "valkey." and "extraEnv" in name)
    ),
}


def schema() -> Json:
    found = loaded(CHART).schema
    assert found
    return found


def objects(part: Json, path: str = "") -> Iterator[tuple[str, bool]]:
    """Every object in the schema: where it is, and whether it refuses unknown keys."""
    if "$ref" in part:
        part = schema()["definitions"][part["$ref"].removeprefix("#/definitions/")]
    if part.get("type") == "object" and not isinstance(part.get("additionalProperties"), dict):
        yield path, part.get("additionalProperties") is False
    for name, each in (part.get("properties") or {}).items():
        yield from objects(each, f"{path}.{name}".removeprefix("."))
    if isinstance(part.get("items"), dict):
        yield from objects(part["items"], f"{path}[]")


def placed(path: str, value: Any) -> Any:
    """Values with this at that place, in lists of one."""
    for step in reversed(path.split(".") if path else []):
        for _ in range(step.count("[]")):
            value = [value]
        value = {step.replace("[]", ""): value}
    return value


def refusal(values: Json) -> str:
    """What the schema says against values; nothing when it takes them."""
    chart = loaded(CHART)
    try:
        chart.validate_schema(chart.merge_values(values))
    except helm_python.HelmValuesError as error:
        return str(error)
    return ""


def leaves(values: Json, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is not a map, by its path."""
    for name, value in values.items():
        where = f"{path}.{name}".removeprefix(".")
        if isinstance(value, dict) and value:
            yield from leaves(value, where)
        else:
            yield where, value


def test_every_object_is_closed_but_for_those_that_are_not_ours() -> None:
    found = dict(objects(schema()))
    assert {path for path, closed in found.items() if not closed} == OPEN
    assert len(found) > 100


def test_a_typo_is_refused_at_every_level() -> None:
    closed = [path for path, is_closed in objects(schema()) if is_closed]
    unnoticed = [path for path in closed if TYPO not in refusal(placed(path, {TYPO: True}))]
    assert unnoticed == []
    assert TYPO not in refusal({"global": {TYPO: True}})


def test_a_wrong_type_is_refused_at_every_value() -> None:
    taken = []
    for path, value in leaves(loaded(CHART).values):
        wrong: Any = "text" if isinstance(value, list | dict) else {"an": "object"}
        if not refusal(placed(path, wrong)):
            taken.append(path)
    assert taken == []


def test_the_defaults_are_taken_and_every_one_is_known() -> None:
    assert refusal({}) == ""
    assert schema()["properties"].keys() == loaded(CHART).values.keys()


SETTINGS = {each.metadata["name"]: each.metadata for each in fields(Settings)}


# No pod takes a day to stop, and no cluster has a thousand flushers.
STRICTER = {"drainDelay", "partitions", "stopTimeout"}


def limits() -> Iterator[tuple[str, Any]]:
    """Each `config.` key with limits, and what the service's settings say of it."""
    for name in loaded(CHART).values["config"]:
        if name in {"keyPrefix", "corsOrigins"}:  # free text: the next tests
            continue
        words = "".join(f"_{letter}" if letter.isupper() else letter for letter in name)
        yield name, SETTINGS[f"BUSYAPI_{words.upper()}"]


@pytest.mark.parametrize(("name", "setting"), [*limits()], ids=[n for n, _ in limits()])
def test_a_key_has_the_limits_of_its_setting(name: str, setting: Any) -> None:
    def taken(value: Any) -> bool:
        return not refusal({"config": {name: value}})

    if setting["choices"]:
        assert all(taken(each) for each in setting["choices"])
        assert not taken("neither")
        return
    assert taken(setting["least"])
    assert taken(setting["most"]) != (name in STRICTER)
    assert not taken(setting["least"] - 1)
    assert not taken(setting["most"] + 1)


@pytest.mark.parametrize(
    ("origins", "taken"),
    [
        ("", True),
        ("https://a.example", True),
        ("http://localhost:8080,https://a.example", True),
        ("https://a.example, https://b.example", True),
        ("*", False),
        ("a.example", False),
        ("https://a.example/", False),
        ("https://A.example", False),
        ("https://*.example", False),
        ("null", False),
    ],
)
def test_origins_are_taken_as_the_service_takes_them(origins: str, taken: bool) -> None:  # noqa: FBT001
    assert (not refusal({"config": {"corsOrigins": origins}})) == taken
    try:
        cors(origins)
    except ConfigError:
        assert not taken
    else:
        assert taken


@pytest.mark.parametrize(
    "prefix", ["busyapi", "a" * 128, "busyapi:ns:release", "a" * 129, "{0}", "*"]
)
def test_a_key_prefix_is_taken_as_the_service_takes_it(prefix: str) -> None:
    try:
        check_prefix(prefix)
    except ConfigError:
        assert refusal({"config": {"keyPrefix": prefix}})
    else:
        assert not refusal({"config": {"keyPrefix": prefix}})


@pytest.mark.parametrize(
    "values",
    [
        {"config": {"partitions": "1"}},
        {"config": {"partitions": 1.5}},
        {"service": {"port": 70000}},
        {"service": {"type": "ExternalName"}},
        {"image": {"pullPolicy": "always"}},
        {"image": {"digest": "0" * 64}},
        {"externalRedis": {"mode": "replicated"}},
        {"externalRedis": {"hosts": [""]}},
        {"valkey": {"resources": {"limits": {"memory": "lots"}}}},
        {"flusher": {"persistence": {"size": "ten gigabytes"}}},
        {"flusher": {"persistence": {"accessModes": ["ReadWriteTwice"]}}},
        {"ingress": {"hosts": ["usages.example.org"]}},
        {"ingress": {"hosts": [{"host": "x", "paths": [{"path": "api", "pathType": "Prefix"}]}]}},
        {"metrics": {"serviceMonitor": {"interval": "often"}}},
        {"keda": {"serverAddress": "prometheus:9090"}},
        {"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "k"}]},
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_refused(values: Json) -> None:
    assert refusal(values)
