"""The chart's environment and docs/reference/settings.md, in both directions."""

import re
from base64 import b64decode
from dataclasses import fields
from pathlib import Path

import pytest

from busyapi.settings import Settings
from testkit.chart.rendering import (
    CHART,
    MODES,
    NAMESPACE,
    ROOT,
    Json,
    containers,
    environment,
    loaded,
    mode_name,
    one,
    pods,
    render,
    values_of,
)
from tools.generate.chart_config import ELSEWHERE

DOCUMENT = (ROOT / "docs" / "reference" / "settings.md").read_text()
DOCUMENTED = set(re.findall(r"^\| `([A-Z_]+)` \|", DOCUMENT, re.MULTILINE))
# The flusher's number in its StatefulSet, for its own command line.
NOT_SETTINGS = {"POD_INDEX"}
CHANGED = {
    "keyPrefix": "other",
    "durability": "memory",
    "validation": "lenient",
    "logLevel": "debug",
    "fastLane": "off",
    "corsOrigins": "https://a.example",
}


def config_map(values: Json | None = None) -> dict[str, str]:
    found: dict[str, str] = one(render(values), "ConfigMap", "busyapi")["data"]
    return found


def by_config() -> dict[str, str]:
    """Each `config.` key, and the variable that it alone changes."""
    before = config_map()
    found = {}
    for name, value in loaded(CHART).values["config"].items():
        other = CHANGED[name] if isinstance(value, str) else value + 1
        after = config_map({"config": {name: other}})
        (found[name],) = (each for each in after if after[each] != before[each])
    return found


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_every_variable_of_the_chart_is_documented(mode: Path) -> None:
    documents = render(values_of(mode))
    config = one(documents, "ConfigMap", "busyapi")
    given = set(config["data"])
    for role in ("api", "flusher"):
        given |= variables(documents, role).keys()
    values = values_of(mode)
    for section in (values, values.get("flusher") or {}):
        given -= {each["name"] for each in section.get("extraEnv") or []}
    assert given - NOT_SETTINGS <= DOCUMENTED


def test_every_setting_has_a_key_or_a_reason_why_not() -> None:
    keyed = set(by_config().values())
    assert keyed | ELSEWHERE.keys() == DOCUMENTED
    assert not keyed & ELSEWHERE.keys()


def test_a_key_is_called_as_its_setting() -> None:
    for name, variable in by_config().items():
        words = re.sub(r"([A-Z])", r"_\1", name).upper()
        assert variable == f"BUSYAPI_{words}"


def test_defaults_are_the_service_s_own_but_for_the_drain() -> None:
    """Endpoints of a cluster lag longer than what the service by itself waits for."""
    own = {each.metadata["name"]: each.default for each in fields(Settings)}
    for name, variable in by_config().items():
        value = loaded(CHART).values["config"][name]
        if name == "keyPrefix":  # made when empty
            value = config_map()[variable]
        assert (value > own[variable]) if name == "drainDelay" else (value == own[variable])


def test_large_figures_are_not_written_as_powers() -> None:
    given = config_map({"config": {"bound": 1_000_000_000, "pendingBytes": 2**40}})
    assert given["BUSYAPI_BOUND"] == "1000000000"
    assert given["BUSYAPI_PENDING_BYTES"] == str(2**40)


EXTERNAL = {"valkey": {"enabled": False}}
SHARED = EXTERNAL | {"externalRedis": {"host": "r"}}


@pytest.mark.parametrize(
    ("values", "prefix"),
    [
        (SHARED, f"busyapi:{NAMESPACE}:busyapi-two"),
        (SHARED | {"config": {"keyPrefix": "mine"}}, "mine"),
        ({}, "busyapi"),
    ],
)
def test_two_releases_on_one_redis_have_keys_of_their_own(values: Json, prefix: str) -> None:
    given = one(render(values, release="busyapi-two"), "ConfigMap", "busyapi-two")["data"]
    assert given["BUSYAPI_KEY_PREFIX"] == prefix
    assert given["BUSYAPI_INSTALLATION"] == f"{NAMESPACE}/busyapi-two"


def test_the_bundled_valkey_lets_its_users_at_the_prefix() -> None:
    secret = one(render({"config": {"keyPrefix": "mine"}}), "Secret", "busyapi-valkey")
    acl = b64decode(secret["data"]["users.acl"]).decode()
    assert acl.count(" ~mine:* ") == 2
    assert "~busyapi" not in acl


HOSTS = ["a.example.org:26379", "b.example.org:26379"]


@pytest.mark.parametrize(
    ("external", "url"),
    [
        ({"host": "r"}, "redis://r:6379"),
        ({"host": "r", "port": 6380, "tls": {"enabled": True}}, "rediss://r:6380"),
        (
            {"mode": "sentinel", "hosts": HOSTS, "masterName": "m"},
            "redis+sentinel://a.example.org:26379,b.example.org:26379/m",
        ),
        (
            {"mode": "cluster", "hosts": HOSTS, "tls": {"enabled": True}},
            "rediss+cluster://a.example.org:26379,b.example.org:26379",
        ),
    ],
)
def test_the_url_of_an_external_redis(external: Json, url: str) -> None:
    assert config_map(EXTERNAL | {"externalRedis": external})["BUSYAPI_REDIS_URL"] == url


def test_the_bundled_valkey_has_a_user_for_each_role() -> None:
    assert config_map()["BUSYAPI_REDIS_URL"] == "redis://busyapi-valkey:6379"
    for component in ("api", "flusher"):
        given = variables(render(), component)
        assert given["BUSYAPI_REDIS_USERNAME"] == component
        assert given["BUSYAPI_REDIS_PASSWORD_FILE"] == "/etc/busyapi/redis/password"


def test_no_login_no_variable() -> None:
    documents = render(EXTERNAL | {"externalRedis": {"host": "r"}})
    assert not {each for each in variables(documents, "api") if "REDIS" in each}


def test_a_flusher_s_url_is_that_of_its_pod_in_its_service() -> None:
    documents = render({"config": {"partitions": 3}, "fullnameOverride": "usages"})
    url = one(documents, "ConfigMap", "usages")["data"]["BUSYAPI_FLUSHER_URLS"]
    spec = one(documents, "StatefulSet", "usages-flusher")["spec"]
    assert one(documents, "Service", spec["serviceName"])["spec"]["clusterIP"] == "None"
    assert url == f"http://usages-flusher-{{partition}}.{spec['serviceName']}:9100"


def variables(documents: list[Json], component: str) -> dict[str, object]:
    """The environment of a role's container, but for the ConfigMap."""
    for _, pod in pods(documents):
        for container in containers(pod):
            if container["name"] == component:
                return environment(container)
    raise LookupError(component)
