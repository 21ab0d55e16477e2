"""Several bundled Valkey servers: their objects, their clients, and what the chart refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from testkit.chart.lookups import with_lookup
from testkit.chart.rendering import (
    Json,
    environment,
    find_object,
    object_key_of,
    of_kind,
    pod_spec,
    render,
    render_notes,
    settings_of,
)
from tests.chart.test_secrets import read_secret
from tests.chart.test_valkey_tls import API, FLUSHER, VALKEY, read_conf

SERVERS = ["busyapi-valkey-0", "busyapi-valkey-1", "busyapi-valkey-2"]
LABEL = "statefulset.kubernetes.io/pod-name"


def with_servers(replicas: int = 3, config: Json | None = None, **valkey: Any) -> Json:
    """Return values with a number of servers."""
    return {"config": config or {}, "valkey": {"replicas": replicas} | valkey}


def find_container(documents: list[Json], name: str) -> Json:
    """Return a container of Valkey's pods."""
    containers = {c["name"]: c for c in pod_spec(documents, *VALKEY)["containers"]}
    container: Json = containers[name]
    return container


def test_by_default_there_is_one_server_without_sentinel() -> None:
    documents = render()
    assert find_object(documents, *VALKEY)["spec"]["replicas"] == 1
    assert [c["name"] for c in pod_spec(documents, *VALKEY)["containers"]] == ["valkey"]
    names = {object_key_of(document) for document in documents}
    assert not {name for name in names if SERVERS[0] in name}
    assert settings_of(documents, *API).durability == "fsync"


@pytest.mark.parametrize("role", [API, FLUSHER])
@pytest.mark.parametrize("tls", [False, True])
def test_clients_ask_every_sentinel(role: tuple[str, str], tls: bool) -> None:  # noqa: FBT001
    documents = render(with_servers(tls={"enabled": tls}))
    settings = settings_of(documents, *role)
    hosts = ",".join(f"{name}:26379" for name in SERVERS)
    assert settings.redis_url == f"redis{'s' if tls else ''}+sentinel://{hosts}/busyapi"
    assert settings.redis_sentinel_username == settings.redis_username
    assert settings.redis_sentinel_password_file == settings.redis_password_file
    assert settings.durability == "replicated"
    assert (settings.replicas, settings.min_replicas) == (2, 1)


def test_each_server_has_a_name_that_is_found_before_it_is_ready() -> None:
    documents = render(with_servers())
    for name in SERVERS:
        spec = find_object(documents, "Service", name)["spec"]
        assert spec.get("clusterIP") != "None"
        assert spec["publishNotReadyAddresses"] is True
        assert spec["selector"][LABEL] == name
        assert {port["port"] for port in spec["ports"]} == {6379, 26379}


def test_service_of_the_only_server_never_leads_to_another_one() -> None:
    """Pods of the API from before the upgrade use it until they are replaced."""
    selector = find_object(render(with_servers()), "Service", "busyapi-valkey")["spec"]["selector"]
    assert selector[LABEL] == SERVERS[0]


def test_settings_of_the_tier_are_on_every_server() -> None:
    conf = read_conf(render(with_servers(extraConfig="replica-priority 100\nrepl-timeout 60")))
    assert conf["replica-priority"] == "0"
    assert int(conf["repl-ping-replica-period"]) < int(conf["repl-timeout"]) < 10
    assert conf["appendfsync"] == "always"
    assert conf["maxmemory-policy"] == "noeviction"


def test_servers_are_on_different_nodes_and_preferably_zones() -> None:
    spread = pod_spec(render(with_servers()), *VALKEY)["topologySpreadConstraints"]
    rules = {entry["topologyKey"]: entry["whenUnsatisfiable"] for entry in spread}
    assert rules == {
        "kubernetes.io/hostname": "DoNotSchedule",
        "topology.kubernetes.io/zone": "ScheduleAnyway",
    }
    assert all(entry["labelSelector"]["matchLabels"] for entry in spread)
    assert "topologySpreadConstraints" not in pod_spec(render(), *VALKEY)


def test_one_server_at_a_time_may_be_evicted() -> None:
    spec = find_object(render(with_servers()), "PodDisruptionBudget", "busyapi-valkey")["spec"]
    assert spec["maxUnavailable"] == 1
    budgets = of_kind(render(), "PodDisruptionBudget")
    assert [budget["metadata"]["name"] for budget in budgets] == ["busyapi"]


def test_no_probe_kills_a_server_that_loads() -> None:
    server = find_container(render(with_servers()), "valkey")
    assert set(server["livenessProbe"]) & {"tcpSocket", "exec", "httpGet"} == {"tcpSocket"}
    assert server["readinessProbe"]["exec"]["command"] == ["sh", "/etc/valkey/ready.sh"]
    own: Json = {"exec": {"command": ["true"]}}
    server = find_container(render(with_servers(readinessProbe=own)), "valkey")
    assert server["readinessProbe"]["exec"] == {"command": ["true"]}


def test_server_has_the_time_to_hand_over() -> None:
    documents = render(with_servers())
    spec = pod_spec(documents, *VALKEY)
    seconds = re.findall(r"_SECONDS=(\d+)", find_files(documents)["stop.sh"])
    assert spec["terminationGracePeriodSeconds"] > sum(map(int, seconds)) > 30
    for name in ("valkey", "sentinel"):
        assert find_container(documents, name)["lifecycle"]["preStop"]["exec"]["command"]


def find_files(documents: list[Json]) -> dict[str, str]:
    """Return Valkey's ConfigMap."""
    files: dict[str, str] = find_object(documents, "ConfigMap", "busyapi-valkey")["data"]
    return files


@pytest.mark.parametrize("values", [with_servers(), with_servers(1)])
def test_every_file_that_a_script_or_command_names_is_mounted(values: Json) -> None:
    documents = render(values)
    files = find_files(documents)
    named = {
        word.rpartition("/")[2]
        for text in (*files.values(), json.dumps(pod_spec(documents, *VALKEY)))
        for word in text.replace('"', " ").replace("'", " ").split()
        if word.startswith("/etc/valkey/")
    }
    keys = {
        item["path"]
        for volume in pod_spec(documents, *VALKEY)["volumes"]
        if volume["name"] == "conf"
        for source in volume["projected"]["sources"]
        for item in source.get("secret", {}).get("items", [])
    }
    assert named <= set(files) | keys


def test_roles_have_only_the_rights_that_the_tier_needs() -> None:
    def rights(values: Json, key: str, user: str) -> set[str]:
        acl = read_secret(render(values), "busyapi-valkey")[key]
        (line,) = [line for line in acl.splitlines() if line.startswith(f"user {user} ")]
        return {word for word in line.split() if word[0] == "+"}

    one, three = with_servers(1), with_servers()
    extra = {
        role: rights(three, "users.acl", role) - rights(one, "users.acl", role)
        for role in ("api", "flusher")
    }
    assert extra == {
        "api": {"+wait"},
        "flusher": {
            "+wait",
            "+config|set",
            "+config|rewrite",
            "+failover",
            "+client|kill",
            "+client|unpause",
        },
    }
    assert rights(three, "users.acl", "replication") == {"+psync", "+replconf", "+ping"}
    assert rights(three, "sentinel.acl", "api") == {"+sentinel|get-master-addr-by-name"}
    assert "sentinel.acl" not in read_secret(render(one), "busyapi-valkey")


def test_only_servers_clients_and_the_job_reach_the_servers() -> None:
    spec = find_object(render(with_servers()), "NetworkPolicy", "busyapi-valkey")["spec"]
    (rule,) = spec["ingress"]
    parts = {
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]
    }
    assert parts == {"api", "flusher", "valkey", "valkey-stay"}
    assert [port["port"] for port in rule["ports"]] == ["redis", "sentinel"]
    peers = [peer for rule in spec["egress"] for peer in rule["to"] if "podSelector" in peer]
    labels = [peer["podSelector"]["matchLabels"] for peer in peers]
    assert labels[0]["app.kubernetes.io/component"] == "valkey"
    assert find_object(render(), "NetworkPolicy", "busyapi-valkey")["spec"]["egress"] == []


def test_certificate_has_the_names_of_all_servers() -> None:
    documents = render(with_servers(tls={"enabled": True, "issuerRef": {"name": "ca"}}))
    names = find_object(documents, "Certificate", "busyapi-valkey")["spec"]["dnsNames"]
    assert names[0] == "busyapi-valkey"
    assert set(SERVERS) <= set(names)
    conf = read_conf(documents)
    assert conf["tls-replication"] == "yes"
    mounts = {
        m["mountPath"]
        for c in pod_spec(documents, *VALKEY)["containers"]
        for m in c["volumeMounts"]
    }
    assert conf["tls-ca-cert-file"].rpartition("/")[0] in mounts


def test_each_server_has_an_exporter() -> None:
    documents = render(with_servers(metrics={"enabled": True}))
    exporter = ("StatefulSet", "busyapi-valkey-exporter")
    assert find_object(documents, *exporter)["spec"]["replicas"] == 3
    variables = environment(pod_spec(documents, *exporter)["containers"][0])
    address = variables["REDIS_ADDR"]
    logins = json.loads(read_secret(documents, "busyapi-valkey")["exporter.json"])
    assert {address.replace("$(NUMBER)", str(n)) for n in range(3)} < set(logins)


@pytest.mark.parametrize(
    ("before", "after", "expected"), [(3, 1, 1), (1, 1, 0), (1, 3, 0), (3, 5, 0)]
)
def test_upgrade_to_one_server_makes_the_server_0_the_primary_first(
    tmp_path: Path, before: int, after: int, expected: int
) -> None:
    flushers = '(dict "annotations" (dict "busyapi/base" "1" "busyapi/flushers" "1"))'
    answer = f'(dict "metadata" {flushers} "spec" (dict "replicas" {before}))'
    chart = with_lookup(tmp_path, "StatefulSet", answer)
    jobs = of_kind(render(with_servers(after), chart=chart, upgrade=True), "Job")
    assert len(jobs) == expected
    for job in jobs:
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert environment(container)["REPLICAS"] == str(before)


def test_notes_say_what_one_server_and_what_three_mean() -> None:
    one, three = render_notes(), render_notes(with_servers())
    assert "Valkey is one pod" in one
    assert "valkey.replicas=3" in one
    assert "Valkey is 3 servers" in three
    assert "at least 2 of them" in three.replace("\n", " ")
