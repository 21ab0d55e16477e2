"""The options that `busyapi dev` refuses before it starts anything."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from busyapi.dev.plan import Plan
from busyapi.errors import ConfigError
from busyapi.settings import Settings


def make_plan(**changes: Any) -> Plan:
    settings = changes.pop("settings", Settings())
    facts = {"port": 3000, "processes": 2, "partitions": 1, "redis_url": "", "environment": {}}
    return Plan(**{**facts, "state": Path("/state"), "settings": settings, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"port": 9090}, "BUSYAPI_METRICS_PORT"),
        ({"processes": 11}, "BUSYAPI_FLUSHER_PORT"),
        ({"partitions": 11, "has_lake": True}, "BUSYAPI_LAKE_METRICS_PORT"),
        ({"settings": Settings(metrics_port=65_535)}, "port 65536: change BUSYAPI_METRICS_PORT"),
    ],
)
def test_an_error_about_an_unusable_port_names_its_setting(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(**changes)


def test_the_replicated_tier_needs_an_external_server() -> None:
    settings = Settings(durability="replicated")
    with pytest.raises(ConfigError, match="--redis"):
        make_plan(settings=settings)
    assert make_plan(settings=settings, redis_url="redis://there")


def test_each_partition_has_a_flusher_and_the_api_has_its_url() -> None:
    environment = make_plan(partitions=3).child_environment(
        "redis://127.0.0.1:1", [7001, 7002, 7003]
    )
    assert environment["BUSYAPI_PARTITIONS"] == "3"
    assert environment["BUSYAPI_FLUSHER_URLS"] == (
        "http://127.0.0.1:7001,http://127.0.0.1:7002,http://127.0.0.1:7003"
    )


def test_a_login_for_an_external_server_is_not_used_for_the_own_one() -> None:
    login = {"BUSYAPI_REDIS_PASSWORD": "secret", "BUSYAPI_RATE_LIMIT": "5"}
    own = make_plan(environment=login).child_environment("redis://127.0.0.1:1", [1])
    external = make_plan(environment=login, redis_url="redis://there").child_environment(
        "redis://there", [1]
    )
    assert own["BUSYAPI_REDIS_PASSWORD"] == ""
    assert external["BUSYAPI_REDIS_PASSWORD"] == "secret"
    assert own["BUSYAPI_RATE_LIMIT"] == external["BUSYAPI_RATE_LIMIT"] == "5"
    names = {field.metadata["name"] for field in fields(Settings)}
    redis = {name for name in names if name.startswith("BUSYAPI_REDIS_")} - {"BUSYAPI_REDIS_URL"}
    assert {own.get(name) for name in redis} == {""}


@pytest.mark.parametrize(
    ("host", "reachable", "in_url"),
    [
        ("127.0.0.1", "127.0.0.1", "localhost"),
        ("0.0.0.0", "127.0.0.1", "localhost"),  # noqa: S104
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("::1", "::1", "[::1]"),
    ],
)
def test_only_the_api_listens_at_the_given_address(host: str, reachable: str, in_url: str) -> None:
    plan = make_plan(host=host)
    assert (plan.reachable_host, plan.url_host) == (reachable, in_url)
    assert plan.child_environment("", [1])["BUSYAPI_HOST"] == "127.0.0.1"


def test_a_name_is_no_address() -> None:
    with pytest.raises(ConfigError, match="--host"):
        make_plan(host="localhost")


@pytest.mark.parametrize(
    ("settings", "anonymous"),
    [
        (Settings(), "write,read"),
        (Settings(anonymous="read"), None),
        (Settings(tokens_file="tokens"), None),
    ],
)
def test_without_credentials_everything_is_allowed(
    settings: Settings, anonymous: str | None
) -> None:
    environment = make_plan(settings=settings).child_environment("", [1])
    assert environment.get("BUSYAPI_ANONYMOUS") == anonymous
