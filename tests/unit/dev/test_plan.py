"""What `busyapi dev` refuses before it starts anything."""

from pathlib import Path
from typing import Any

import pytest

from busyapi.dev.plan import Plan
from busyapi.errors import ConfigError
from busyapi.settings import Settings


def plan(**changed: Any) -> Plan:
    settings = changed.pop("settings", Settings())
    facts = {"port": 3000, "processes": 2, "partitions": 1, "redis_url": "", "environment": {}}
    return Plan(**{**facts, "state": Path("/state"), "settings": settings, **changed})


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"port": 9090}, "BUSYAPI_METRICS_PORT"),
        ({"processes": 11}, "BUSYAPI_FLUSHER_PORT"),
        ({"settings": Settings(metrics_port=65_535)}, "port 65536: change BUSYAPI_METRICS_PORT"),
    ],
)
def test_ports_that_overlap_or_do_not_exist_are_refused_by_their_setting(
    changed: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        plan(**changed)


def test_the_replicated_tier_needs_another_server_than_ours() -> None:
    settings = Settings(durability="replicated")
    with pytest.raises(ConfigError, match="--redis"):
        plan(settings=settings)
    assert plan(settings=settings, redis_url="redis://there")


def test_each_partition_has_a_flusher_and_the_api_is_told_where_each_is() -> None:
    environment = plan(partitions=3).child_environment("redis://127.0.0.1:1")
    assert environment["BUSYAPI_PARTITIONS"] == "3"
    assert environment["BUSYAPI_FLUSHER_URLS"] == (
        "http://127.0.0.1:9100,http://127.0.0.1:9101,http://127.0.0.1:9102"
    )


def test_a_login_for_another_server_is_not_tried_on_our_valkey() -> None:
    login = {"BUSYAPI_REDIS_PASSWORD": "secret", "BUSYAPI_RATE_LIMIT": "5"}
    ours = plan(environment=login).child_environment("redis://127.0.0.1:1")
    theirs = plan(environment=login, redis_url="redis://there").child_environment("redis://there")
    assert ours["BUSYAPI_REDIS_PASSWORD"] == ""
    assert theirs["BUSYAPI_REDIS_PASSWORD"] == "secret"
    assert ours["BUSYAPI_RATE_LIMIT"] == theirs["BUSYAPI_RATE_LIMIT"] == "5"
