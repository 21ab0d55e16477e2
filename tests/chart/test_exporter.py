"""Valkey's exporter: off by default, in a pod of its own, with rights to INFO and little else."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from testkit.chart.rendering import Json, environment, find_object, pods, render
from testkit.servers import Server
from tests.chart.test_acl import OPERATOR
from tests.chart.test_secrets import read_secret

NAME = "busyapi-valkey-exporter"
ENABLED: Json = {"valkey": {"metrics": {"enabled": True}}}
PEER = "app.kubernetes.io/component"


def find_exporter_objects(values: Json) -> set[str]:
    """Return the kinds of the objects that exist for the exporter."""
    documents = render(values)
    return {entry["kind"] for entry in documents if entry["metadata"]["name"] == NAME}


def test_exporter_is_off_by_default_and_without_the_bundled_valkey() -> None:
    external: Json = {"enabled": False, **ENABLED["valkey"]}
    values = {"valkey": external, "externalRedis": {"host": "r.example.org"}}
    assert find_exporter_objects({}) == find_exporter_objects(values) == set()
    assert "exporter" not in str(find_object(render(), "Secret", "busyapi-valkey")["data"].keys())


def test_exporter_has_its_own_pod_so_that_its_failure_is_not_that_of_valkey() -> None:
    documents = render(ENABLED)
    valkey = find_object(documents, "StatefulSet", "busyapi-valkey")["spec"]["template"]["spec"]
    assert [container["name"] for container in valkey["containers"]] == ["valkey"]
    (container,) = dict(pods(documents))[f"Deployment/{NAME}"]["spec"]["containers"]
    assert container["image"] == "docker.io/oliver006/redis_exporter:v1.80.0"
    variables = environment(container)
    assert variables["REDIS_ADDR"] == "redis://busyapi-valkey:6379"
    # Versions of the exporter look the password up by the address with the user, or without.
    content = json.loads(read_secret(documents, "busyapi-valkey")["exporter.json"])
    assert set(content) == {"redis://exporter@busyapi-valkey:6379", "redis://busyapi-valkey:6379"}


def test_image_and_secret_are_values() -> None:
    image = {"registry": "r.example.org", "digest": "sha256:" + "1" * 64}
    metrics: Json = {"enabled": True, "image": image}
    values = {"valkey": {"metrics": metrics, "auth": {"existingSecret": "mine"}}}
    spec = dict(pods(render(values)))[f"Deployment/{NAME}"]["spec"]
    (container,) = spec["containers"]
    assert container["image"] == f"r.example.org/oliver006/redis_exporter@{image['digest']}"
    assert spec["volumes"][0]["secret"]["secretName"] == "mine"


@pytest.mark.parametrize(
    ("monitor", "kinds"),
    [
        ("serviceMonitor", {"Deployment", "NetworkPolicy", "Service", "ServiceMonitor"}),
        ("podMonitor", {"Deployment", "NetworkPolicy", "PodMonitor"}),
    ],
)
def test_monitors_find_the_exporter(monitor: str, kinds: set[str]) -> None:
    assert find_exporter_objects(ENABLED | {"metrics": {monitor: {"enabled": True}}}) == kinds


def test_annotations_name_the_port() -> None:
    documents = render(ENABLED | {"metrics": {"annotations": {"enabled": True}}})
    annotations = dict(pods(documents))[f"Deployment/{NAME}"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == "9121"


def test_policies_let_prometheus_reach_the_exporter_and_the_exporter_valkey() -> None:
    documents = render(ENABLED | {"networkPolicy": {"enabled": True}})
    spec = find_object(documents, "NetworkPolicy", NAME)["spec"]
    assert [rule["ports"] for rule in spec["ingress"]] == [[{"port": "metrics"}]]
    assert spec["egress"][0]["ports"] == [{"port": "redis"}]
    valkey = find_object(documents, "NetworkPolicy", "busyapi-valkey")["spec"]["ingress"][0]
    peers = {entry["podSelector"]["matchLabels"][PEER] for entry in valkey["from"]}
    assert peers == {"api", "flusher", "valkey-exporter"}
    closed = {"networkPolicy": {"enabled": True, "metricsFrom": []}}
    assert find_object(render(ENABLED | closed), "NetworkPolicy", NAME)["spec"]["ingress"] == []


def test_enabling_the_exporter_restarts_valkey_which_reads_its_users_at_start() -> None:
    templates = [
        find_object(render(values), "StatefulSet", "busyapi-valkey")["spec"]["template"]
        for values in ({}, ENABLED)
    ]
    checksums = [entry["metadata"]["annotations"]["checksum/config"] for entry in templates]
    assert checksums[0] != checksums[1]


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[redis.Redis]:
    """Yield a client that is logged in as the exporter to a server with the chart's users."""
    data = read_secret(render(ENABLED), "busyapi-valkey")
    acl = (*data["users.acl"].splitlines(), OPERATOR)
    server = Server(tmp_path / "server", username="operator", password="operator", acl=acl)
    with server:
        client = redis.Redis(
            port=server.port,
            username="exporter",
            password=data["exporter-password"],
            retry=Retry(NoBackoff(), 0),
        )
        yield client
        client.close()


def test_exporter_may_read_what_it_exports(exporter: redis.Redis) -> None:
    for command in ("PING", "INFO ALL", "LATENCY LATEST", "SLOWLOG LEN"):
        exporter.execute_command(*command.split())  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "command",
    [
        "SLOWLOG GET 1",
        "CONFIG GET *",
        "KEYS *",
        "SCAN 0",
        "GET busyapi:{0}:seq",
        "XRANGE busyapi:{0}:stream - +",
        "CLIENT LIST",
        "MONITOR",
        "ACL LIST",
    ],
)
def test_exporter_may_read_no_data_and_no_setting(exporter: redis.Redis, command: str) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        exporter.execute_command(*command.split())  # type: ignore[no-untyped-call]
