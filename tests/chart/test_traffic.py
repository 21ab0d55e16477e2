"""What can be reached, by whom: Services, Ingress, HTTPRoute, NetworkPolicy, monitors."""

from pathlib import Path
from typing import Any

import pytest

from testkit.chart.rendering import (
    MODES,
    Json,
    key,
    mode_name,
    of_kind,
    one,
    pods,
    render,
    values_of,
)

PUBLIC = {("/api", "Prefix"), ("/", "Exact"), ("/openapi.json", "Exact")}
INGRESS: Json = {"ingress": {"enabled": True, "hosts": [{"host": "usages.example.org"}]}}
ROUTE: Json = {"httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]}}
POLICY: Json = {"networkPolicy": {"enabled": True}}
EXTERNAL: Json = {"valkey": {"enabled": False}, "externalRedis": {"host": "redis.example.org"}}
DNS: Json = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}


def peer(component: str) -> Json:
    labels = {
        "app.kubernetes.io/name": "busyapi",
        "app.kubernetes.io/instance": "busyapi",
        "app.kubernetes.io/component": component,
    }
    return {"podSelector": {"matchLabels": labels}}


def policy(component: str, values: Json | None = None) -> Json:
    name = f"busyapi-{component}"
    found: Json = one(render(POLICY | (values or {})), "NetworkPolicy", name)["spec"]
    return found


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_every_service_leads_to_a_port_of_pods_that_are_there(mode: Path) -> None:
    documents = render(values_of(mode))
    for service in of_kind(documents, "Service"):
        wanted = service["spec"]["selector"].items()
        chosen = [
            each for _, each in pods(documents) if wanted <= each["metadata"]["labels"].items()
        ]
        assert len(chosen) == 1, key(service)
        ports = {p["name"] for c in chosen[0]["spec"]["containers"] for p in c.get("ports") or []}
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports, key(service)
            assert port["name"]
            assert port["appProtocol"]


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_nothing_from_outside_is_led_to_metrics_or_probes(mode: Path) -> None:
    documents = render(values_of(mode))
    for ingress in of_kind(documents, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            paths = {(each["path"], each["pathType"]) for each in rule["http"]["paths"]}
            assert paths
            assert paths <= PUBLIC
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                leads_to_the_api(documents, backend["name"], backend["port"]["name"])
    for route in of_kind(documents, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                leads_to_the_api(documents, backend["name"], backend["port"])


def leads_to_the_api(documents: list[Json], service: str, port: str | int) -> None:
    """A Service of the API with the one port that devices post to."""
    spec = one(documents, "Service", service)["spec"]
    assert [port] == [each["name" if isinstance(port, str) else "port"] for each in spec["ports"]]
    assert spec["ports"][0]["targetPort"] == "http"
    assert spec["selector"]["app.kubernetes.io/component"] == "api"


def test_the_service_of_the_api_has_one_port() -> None:
    (port,) = one(render(), "Service", "busyapi")["spec"]["ports"]
    assert (port["name"], port["port"], port["targetPort"]) == ("http", 80, "http")


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ({"type": "NodePort", "nodePort": 30080}, {"type": "NodePort"}),
        ({"ipFamilyPolicy": "PreferDualStack"}, {"ipFamilyPolicy": "PreferDualStack"}),
        ({"ipFamilies": ["IPv6"]}, {"ipFamilies": ["IPv6"]}),
        ({"trafficDistribution": "PreferClose"}, {"trafficDistribution": "PreferClose"}),
    ],
)
def test_what_is_said_of_the_service(service: Json, expected: Json) -> None:
    spec = one(render({"service": service}), "Service", "busyapi")["spec"]
    assert expected.items() <= spec.items()
    assert spec["ports"][0].get("nodePort") == service.get("nodePort")


def test_an_ingress_takes_what_devices_need() -> None:
    (ingress,) = of_kind(render(INGRESS), "Ingress")
    (rule,) = ingress["spec"]["rules"]
    assert {(each["path"], each["pathType"]) for each in rule["http"]["paths"]} == PUBLIC


def test_an_ingress_for_any_host_and_with_paths_of_ones_own() -> None:
    own = {"host": "", "paths": [{"path": "/api/usages", "pathType": "Exact"}]}
    (ingress,) = of_kind(render({"ingress": {"enabled": True, "hosts": [own]}}), "Ingress")
    (rule,) = ingress["spec"]["rules"]
    assert "host" not in rule
    assert [each["path"] for each in rule["http"]["paths"]] == ["/api/usages"]


def test_class_tls_annotations_and_labels_of_an_ingress() -> None:
    said: Json = {
        "className": "traefik",
        "tls": [{"secretName": "t", "hosts": ["usages.example.org"]}],
        "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
        "labels": {"team": "inhalers"},
    }
    (ingress,) = of_kind(render({"ingress": INGRESS["ingress"] | said}), "Ingress")
    assert ingress["spec"]["ingressClassName"] == said["className"]
    assert ingress["spec"]["tls"] == said["tls"]
    assert ingress["metadata"]["annotations"] == said["annotations"]
    assert said["labels"].items() <= ingress["metadata"]["labels"].items()


@pytest.mark.parametrize("said", [{}, {"matches": []}])
def test_a_route_without_matches_takes_what_the_ingress_takes(said: Json) -> None:
    (route,) = of_kind(render({"httpRoute": ROUTE["httpRoute"] | said}), "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    kinds = {"PathPrefix": "Prefix", "Exact": "Exact"}
    paths = [each["path"] for each in rule["matches"]]
    assert {(each["value"], kinds[each["type"]]) for each in paths} == PUBLIC


def test_a_route_with_everything() -> None:
    said: Json = {
        "hostnames": ["{{ .Release.Name }}.example.org"],
        "matches": [{"path": {"type": "Exact", "value": "/api/usages"}}],
        "filters": [{"type": "RequestHeaderModifier"}],
        "timeouts": {"request": "20s"},
        "annotations": {"a": "b"},
    }
    (route,) = of_kind(render({"httpRoute": ROUTE["httpRoute"] | said}), "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    assert route["spec"]["hostnames"] == ["busyapi.example.org"]
    assert {name: rule[name] for name in ("matches", "filters", "timeouts")} == {
        name: said[name] for name in ("matches", "filters", "timeouts")
    }


@pytest.mark.parametrize("component", ["api", "flusher", "valkey"])
def test_a_policy_is_about_its_own_pods_both_ways(component: str) -> None:
    spec = policy(component)
    assert spec["podSelector"] == peer(component)["podSelector"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}


def test_the_api_is_reached_by_who_may_and_scraped_by_monitoring_alone() -> None:
    devices: Json = {"namespaceSelector": {"matchLabels": {"name": "ingress"}}}
    spec = policy("api", {"networkPolicy": POLICY["networkPolicy"] | {"httpFrom": [devices]}})
    monitoring = {"kubernetes.io/metadata.name": "monitoring"}
    by_port = {rule["ports"][0]["port"]: rule["from"] for rule in spec["ingress"]}
    assert by_port == {
        "http": [peer("test"), devices],
        "metrics": [{"namespaceSelector": {"matchLabels": monitoring}}],
    }


def test_the_api_reaches_redis_the_flushers_and_dns_and_nothing_else() -> None:
    assert policy("api")["egress"] == [
        {"to": [peer("valkey")], "ports": [{"port": "redis"}]},
        {"to": [peer("flusher")], "ports": [{"port": "http"}]},
        DNS,
    ]


def test_the_flusher_is_asked_by_the_api_and_reaches_redis_and_dns() -> None:
    spec = policy("flusher")
    assert spec["ingress"][0] == {"from": [peer("api"), peer("test")], "ports": [{"port": "http"}]}
    assert spec["egress"] == [{"to": [peer("valkey")], "ports": [{"port": "redis"}]}, DNS]


def test_valkey_is_reached_by_both_roles_and_reaches_nobody() -> None:
    spec = policy("valkey")
    both = [peer("api"), peer("flusher")]
    assert spec["ingress"] == [{"from": both, "ports": [{"port": "redis"}]}]
    assert spec["egress"] == []


def test_an_external_redis_is_reached_where_it_is() -> None:
    where = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    said: Json = {"enabled": True, "externalRedis": {"to": where, "ports": [6380]}}
    for component in ("api", "flusher"):
        first = policy(component, EXTERNAL | {"networkPolicy": said})["egress"][0]
        assert first == {"to": where, "ports": [{"port": 6380}]}
    assert "valkey" not in {
        each["metadata"]["labels"]["app.kubernetes.io/component"]
        for each in of_kind(render(POLICY | EXTERNAL), "NetworkPolicy")
    }


@pytest.mark.parametrize("component", ["api", "flusher", "valkey"])
def test_rules_of_ones_own_are_added_to_a_policy(component: str) -> None:
    extra: Json = {"extraIngress": [{"ports": [{"port": 1}]}], "extraEgress": [{"to": []}]}
    spec = policy(component, {"networkPolicy": {"enabled": True, component: extra}})
    assert spec["ingress"][-1] == extra["extraIngress"][0]
    assert spec["egress"][-1] == extra["extraEgress"][0]


def test_nobody_scrapes_when_nobody_may() -> None:
    spec = policy("api", {"networkPolicy": {"enabled": True, "metricsFrom": []}})
    assert [rule["ports"][0]["port"] for rule in spec["ingress"]] == ["http"]


def scraped(document: Json, documents: list[Json]) -> set[str]:
    """The components whose metrics a monitor finds."""
    wanted: Any = document["spec"]["selector"]["matchLabels"].items()
    if document["kind"] == "PodMonitor":
        found = [each for _, each in pods(documents)]
        labels = [each["metadata"]["labels"] for each in found]
        return {each["app.kubernetes.io/component"] for each in labels if wanted <= each.items()}
    services = of_kind(documents, "Service")
    return {
        each["spec"]["selector"]["app.kubernetes.io/component"]
        for each in services
        if wanted <= each["metadata"]["labels"].items()
        and document["spec"]["endpoints"][0]["port"] in {p["name"] for p in each["spec"]["ports"]}
    }


@pytest.mark.parametrize(
    ("way", "kind"), [("serviceMonitor", "ServiceMonitor"), ("podMonitor", "PodMonitor")]
)
def test_monitors_find_api_and_flusher_once_each(way: str, kind: str) -> None:
    said = {"enabled": True, "labels": {"release": "prometheus"}, "scrapeTimeout": "10s"}
    documents = render({"metrics": {way: said}})
    monitors = of_kind(documents, kind)
    assert [scraped(each, documents) for each in monitors] == [{"api"}, {"flusher"}]
    for each in monitors:
        (endpoint,) = each["spec"].get("endpoints") or each["spec"]["podMetricsEndpoints"]
        assert endpoint["interval"] == "15s"
        assert endpoint["scrapeTimeout"] == "10s"
        assert each["metadata"]["labels"]["release"] == "prometheus"


def test_pods_are_annotated_for_prometheus_when_asked() -> None:
    said = {"metrics": {"annotations": {"enabled": True}}}
    for values, ports in (({}, {}), (said, {"api": "9090", "flusher": "9100"})):
        found = {
            each["metadata"]["labels"]["app.kubernetes.io/component"]: annotations[name]
            for _, each in pods(render(values))
            if (name := "prometheus.io/port")
            in (annotations := each["metadata"].get("annotations") or {})
        }
        assert found == ports
