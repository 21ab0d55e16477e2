"""The chart's environment variables and docs/reference/settings.md agree in both directions."""

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
    find_object,
    load_chart,
    mode_name,
    pods,
    render,
    render_notes,
    values_of,
)
from tools.generate.chart_config import WITHOUT_CONFIG_KEY

DOCUMENT = (ROOT / "docs" / "reference" / "settings.md").read_text()
DOCUMENTED = set(re.findall(r"^\| `([A-Z_]+)` \|", DOCUMENT, re.MULTILINE))
# The ordinal of the flusher in its StatefulSet, for its command line.
NOT_SETTINGS = {"POD_INDEX"}
CHANGED = {
    "archiveFormat": 1,
    "keyPrefix": "other",
    "durability": "memory",
    "validation": "lenient",
    "logLevel": "debug",
    "fastPath": "off",
    "redisTrust": "appendfsync",
    "audit": "required",
    "corsOrigins": "https://a.example",
}


def config_map(values: Json | None = None) -> dict[str, str]:
    data: dict[str, str] = find_object(render(values), "ConfigMap", "busyapi")["data"]
    return data


def variables_by_config_key() -> dict[str, str]:
    """Return the variable that each `config.` key changes."""
    before = config_map()
    variables_by_key = {}
    for name, value in load_chart(CHART).values["config"].items():
        other = CHANGED[name] if name in CHANGED else value + 1
        after = config_map({"config": {name: other}})
        (variables_by_key[name],) = (
            variable for variable in after if after[variable] != before[variable]
        )
    return variables_by_key


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_every_variable_of_the_chart_is_documented(mode: Path) -> None:
    documents = render(values_of(mode))
    config = find_object(documents, "ConfigMap", "busyapi")
    names = set(config["data"])
    for role in ("api", "flusher"):
        names |= variables(documents, role).keys()
    values = values_of(mode)
    for section in (values, values.get("flusher") or {}):
        names -= {variable["name"] for variable in section.get("extraEnv") or []}
    assert names - NOT_SETTINGS <= DOCUMENTED


def test_every_setting_has_a_key_or_a_reason_why_not() -> None:
    keyed = set(variables_by_config_key().values())
    assert keyed | WITHOUT_CONFIG_KEY.keys() == DOCUMENTED
    assert not keyed & WITHOUT_CONFIG_KEY.keys()


def test_key_has_the_name_of_its_setting() -> None:
    for name, variable in variables_by_config_key().items():
        words = re.sub(r"([A-Z])", r"_\1", name).upper()
        assert variable == f"BUSYAPI_{words}"


def test_defaults_are_those_of_the_service_except_the_drain_delay() -> None:
    """Endpoints of a cluster take longer to update than the service waits by default."""
    defaults = {field.metadata["name"]: field.default for field in fields(Settings)}
    for name, variable in variables_by_config_key().items():
        value = load_chart(CHART).values["config"][name]
        if name in {"keyPrefix", "durability"}:  # computed if empty
            value = config_map()[variable]
        assert (
            (value > defaults[variable]) if name == "drainDelay" else (value == defaults[variable])
        )


def test_large_numbers_are_not_written_with_exponents() -> None:
    data = config_map({"config": {"bound": 1_000_000_000, "pendingBytes": 2**40}})
    assert data["BUSYAPI_BOUND"] == "1000000000"
    assert data["BUSYAPI_PENDING_BYTES"] == str(2**40)


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
def test_two_releases_on_one_redis_have_different_keys(values: Json, prefix: str) -> None:
    data = find_object(render(values, release="busyapi-two"), "ConfigMap", "busyapi-two")["data"]
    assert data["BUSYAPI_KEY_PREFIX"] == prefix
    assert data["BUSYAPI_INSTALLATION"] == f"{NAMESPACE}/busyapi-two"


def test_users_of_the_bundled_valkey_have_access_to_the_prefix() -> None:
    secret = find_object(render({"config": {"keyPrefix": "mine"}}), "Secret", "busyapi-valkey")
    acl = b64decode(secret["data"]["users.acl"]).decode()
    assert acl.count(" ~mine:* ") == 2
    assert "~busyapi" not in acl


HOSTS = ["a.example.org:26379", "b.example.org:26379"]


@pytest.mark.parametrize(
    ("external", "url"),
    [
        ({"host": "r"}, "redis://r:6379"),
        ({"host": "fd00::6"}, "redis://[fd00::6]:6379"),
        ({"host": "[fd00::6]", "port": 6380}, "redis://[fd00::6]:6380"),
        (
            {"mode": "cluster", "hosts": ["[fd00::6]:6379", "a.example.org"]},
            "redis+cluster://[fd00::6]:6379,a.example.org",
        ),
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
def test_redis_url_of_an_external_redis(external: Json, url: str) -> None:
    assert config_map(EXTERNAL | {"externalRedis": external})["BUSYAPI_REDIS_URL"] == url


def test_each_role_has_its_user_of_the_bundled_valkey() -> None:
    assert config_map()["BUSYAPI_REDIS_URL"] == "redis://busyapi-valkey:6379"
    for component in ("api", "flusher"):
        names = variables(render(), component)
        assert names["BUSYAPI_REDIS_USERNAME"] == component
        assert names["BUSYAPI_REDIS_PASSWORD_FILE"] == "/etc/busyapi/redis/password"


def test_no_variable_is_set_without_a_login() -> None:
    documents = render(EXTERNAL | {"externalRedis": {"host": "r"}})
    assert not {name for name in variables(documents, "api") if "REDIS" in name}


def test_flusher_url_is_that_of_its_pod_in_its_service() -> None:
    documents = render({"config": {"partitions": 3}, "fullnameOverride": "usages"})
    url = find_object(documents, "ConfigMap", "usages")["data"]["BUSYAPI_FLUSHER_URLS"]
    spec = find_object(documents, "StatefulSet", "usages-flusher")["spec"]
    assert find_object(documents, "Service", spec["serviceName"])["spec"]["clusterIP"] == "None"
    assert url == f"http://usages-flusher-{{partition}}.{spec['serviceName']}:9101"


def variables(documents: list[Json], component: str) -> dict[str, object]:
    """Return the environment of a role's container without the ConfigMap."""
    for _, pod in pods(documents):
        for container in containers(pod):
            if container["name"] == component:
                return environment(container)
    raise LookupError(component)


def test_the_key_of_an_older_release_is_accepted_with_a_warning() -> None:
    values = {"config": {"fastLane": "off"}}
    assert config_map(values)["BUSYAPI_FAST_PATH"] == "off"
    assert "config.fastLane is renamed to config.fastPath" in render_notes(values)
    assert "fastLane" not in render_notes()


@pytest.mark.parametrize(("former", "value"), [({"fastLane": "off"}, "off"), ({}, "on")])
def test_values_without_the_new_key_are_enough(former: Json, value: str) -> None:
    """As `helm upgrade --reuse-values` gives them: a null removes the chart's default."""
    values = {"config": {"fastPath": None, **former}}
    assert config_map(values)["BUSYAPI_FAST_PATH"] == value
