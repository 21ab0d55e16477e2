"""values.schema.json rejects a typo at any level, a wrong type, and a value out of range."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import helm_python
import pytest

from busyapi.api.cors import parse_origins
from busyapi.errors import ConfigError
from busyapi.settings import Settings
from busyapi.stream.keys import check_prefix
from testkit.chart.rendering import CHART, Json, load_chart

TYPO = "enabledd"
# Open on purpose: Kubernetes or another chart defines and checks their contents.
OPEN = {
    "global",
    "httpRoute.matches[].headers[]",
    "httpRoute.matches[].queryParams[]",
    "httpRoute.filters[]",
    "extraObjects[]",
    "keda.extraTriggers[]",
    "lake.extraEnv[].valueFrom",
    "lake.resources.claims[]",
    "tests.resources.claims[]",
    "valkey.metrics.resources.claims[]",
    "valkey.sentinel.resources.claims[]",
    "valkey.tls.resources.claims[]",
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


def load_schema() -> Json:
    root = load_chart(CHART).schema
    assert root
    return root


def list_objects(part: Json, path: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the path of each object in the schema, and whether it rejects unknown keys."""
    if "$ref" in part:
        part = load_schema()["definitions"][part["$ref"].removeprefix("#/definitions/")]
    if "object" in kinds(part) and not isinstance(part.get("additionalProperties"), dict):
        yield path, part.get("additionalProperties") is False
    for name, child in (part.get("properties") or {}).items():
        yield from list_objects(child, f"{path}.{name}".removeprefix("."))
    if isinstance(part.get("items"), dict):
        yield from list_objects(part["items"], f"{path}[]")


def kinds(part: Json) -> list[str]:
    """Return the types of a part of the schema."""
    kind = part.get("type") or []
    return [kind] if isinstance(kind, str) else kind


def nest(path: str, value: Any) -> Any:
    """Return values with this value at the path, in lists of one."""
    for step in reversed(path.split(".") if path else []):
        for _ in range(step.count("[]")):
            value = [value]
        value = {step.replace("[]", ""): value}
    return value


def find_refusal(values: Json) -> str:
    """Return the error of the schema, or nothing if it accepts the values."""
    chart = load_chart(CHART)
    try:
        chart.validate_schema(chart.merge_values(values))
    except helm_python.HelmValuesError as error:
        return str(error)
    return ""


def list_leaves(values: Json, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and value of everything that is not a map."""
    for name, value in values.items():
        child_path = f"{path}.{name}".removeprefix(".")
        if isinstance(value, dict) and value:
            yield from list_leaves(value, child_path)
        else:
            yield child_path, value


def test_every_object_rejects_unknown_keys_except_foreign_ones() -> None:
    closed_by_path = dict(list_objects(load_schema()))
    assert {path for path, closed in closed_by_path.items() if not closed} == OPEN
    assert len(closed_by_path) > 100


def test_typo_is_rejected_at_every_level() -> None:
    closed = [path for path, is_closed in list_objects(load_schema()) if is_closed]
    unnoticed = [path for path in closed if TYPO not in find_refusal(nest(path, {TYPO: True}))]
    assert unnoticed == []
    assert TYPO not in find_refusal({"global": {TYPO: True}})


def test_wrong_type_is_rejected_at_every_value() -> None:
    accepted = []
    for path, value in list_leaves(load_chart(CHART).values):
        wrong: Any = "text" if isinstance(value, list | dict) else {"an": "object"}
        if not find_refusal(nest(path, wrong)):
            accepted.append(path)
    assert accepted == []


def test_defaults_are_accepted_and_all_in_the_schema() -> None:
    assert find_refusal({}) == ""
    assert load_schema()["properties"].keys() == load_chart(CHART).values.keys()


SETTINGS = {field.metadata["name"]: field.metadata for field in fields(Settings)}


# The chart allows less than the service: no pod needs a day to stop, no release 1,000 flushers.
STRICTER = {"drainDelay", "partitions", "stopTimeout"}


def list_limited_keys() -> Iterator[tuple[str, Any]]:
    """Yield each `config.` key with limits, and the metadata of its setting."""
    for name in load_chart(CHART).values["config"]:
        if name in {"keyPrefix", "corsOrigins"}:  # free text, see the next tests
            continue
        words = "".join(f"_{letter}" if letter.isupper() else letter for letter in name)
        yield name, SETTINGS[f"BUSYAPI_{words.upper()}"]


@pytest.mark.parametrize(
    ("name", "setting"), [*list_limited_keys()], ids=[n for n, _ in list_limited_keys()]
)
def test_key_has_the_limits_of_its_setting(name: str, setting: Any) -> None:
    def is_accepted(value: Any) -> bool:
        return not find_refusal({"config": {name: value}})

    if setting["choices"]:
        assert all(is_accepted(choice) for choice in setting["choices"])
        assert not is_accepted("neither")
        return
    assert is_accepted(setting["minimum"])
    assert is_accepted(setting["maximum"]) != (name in STRICTER)
    assert not is_accepted(setting["minimum"] - 1)
    assert not is_accepted(setting["maximum"] + 1)


@pytest.mark.parametrize(
    ("origins", "accepted"),
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
def test_schema_and_service_accept_the_same_origins(origins: str, accepted: bool) -> None:  # noqa: FBT001
    assert (not find_refusal({"config": {"corsOrigins": origins}})) == accepted
    try:
        parse_origins(origins)
    except ConfigError:
        assert not accepted
    else:
        assert accepted


@pytest.mark.parametrize(
    "prefix", ["busyapi", "a" * 128, "busyapi:ns:release", "a" * 129, "{0}", "*"]
)
def test_schema_and_service_accept_the_same_key_prefixes(prefix: str) -> None:
    try:
        check_prefix(prefix)
    except ConfigError:
        assert find_refusal({"config": {"keyPrefix": prefix}})
    else:
        assert not find_refusal({"config": {"keyPrefix": prefix}})


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
        {"externalRedis": {"hosts": ["fd00::6:26379"]}},
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
def test_impossible_value_is_rejected(values: Json) -> None:
    assert find_refusal(values)
