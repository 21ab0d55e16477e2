"""Tests of network access: Services, Ingress, HTTPRoute, NetworkPolicy, monitors."""

import re
from pathlib import Path
from typing import Any

import pytest

from testkit.chart.rendering import (
    MODES,
    OPEN,
    Json,
    find_object,
    mode_name,
    object_key_of,
    of_kind,
    pods,
    render,
    values_of,
)

PUBLIC = {("/api", "Prefix"), ("/", "Exact"), ("/openapi.json", "Exact")}
INGRESS: Json = OPEN | {"ingress": {"enabled": True, "hosts": [{"host": "usages.example.org"}]}}
ROUTE: Json = OPEN | {"httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]}}
NO_POLICY: Json = {"networkPolicy": {"enabled": False}}
POLICY: Json = {"networkPolicy": {"enabled": True}}
EXTERNAL: Json = {"valkey": {"enabled": False}, "externalRedis": {"host": "redis.example.org"}}
OPENSHIFT = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}}


def make_peer(component: str) -> Json:
    labels = {
        "app.kubernetes.io/name": "busyapi",
        "app.kubernetes.io/instance": "busyapi",
        "app.kubernetes.io/component": component,
    }
    return {"podSelector": {"matchLabels": labels}}


def dns(port: int, *to: Json) -> Json:
    """Return a rule for queries to this port of these peers."""
    ports = [{"port": port, "protocol": "UDP"}, {"port": port, "protocol": "TCP"}]
    return {"ports": ports, "to": [*to]}


KUBE_DNS = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}
NODE_CACHE = {"ipBlock": {"cidr": "169.254.20.10/32"}}
DNS = [dns(53, KUBE_DNS, NODE_CACHE), dns(5353, OPENSHIFT)]


def render_policy(component: str, values: Json | None = None) -> Json:
    name = f"busyapi-{component}"
    spec: Json = find_object(render(POLICY | (values or {})), "NetworkPolicy", name)["spec"]
    return spec


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_every_service_targets_an_existing_port_of_existing_pods(mode: Path) -> None:
    documents = render(values_of(mode))
    for service in of_kind(documents, "Service"):
        labels = dict(service["spec"]["selector"])
        # The StatefulSet controller adds this label.
        pod_name = labels.pop("statefulset.kubernetes.io/pod-name", "busyapi-valkey-0")
        assert re.fullmatch("busyapi-valkey-[0-9]", pod_name)
        selector = labels.items()
        selected = [
            pod for _, pod in pods(documents) if selector <= pod["metadata"]["labels"].items()
        ]
        assert len(selected) == 1, object_key_of(service)
        ports = {p["name"] for c in selected[0]["spec"]["containers"] for p in c.get("ports") or []}
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports, object_key_of(service)
            assert port["name"]
            assert port["appProtocol"]


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_metrics_and_probes_are_not_routed_from_outside(mode: Path) -> None:
    documents = render(values_of(mode))
    for ingress in of_kind(documents, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            paths = {(path["path"], path["pathType"]) for path in rule["http"]["paths"]}
            assert paths
            assert paths <= PUBLIC
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                assert_targets_the_api(documents, backend["name"], backend["port"]["name"])
    for route in of_kind(documents, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                assert_targets_the_api(documents, backend["name"], backend["port"])


def assert_targets_the_api(documents: list[Json], service: str, port: str | int) -> None:
    """Fail unless it is the API's Service with the port that devices post to."""
    spec = find_object(documents, "Service", service)["spec"]
    assert [port] == [entry["name" if isinstance(port, str) else "port"] for entry in spec["ports"]]
    assert spec["ports"][0]["targetPort"] == "http"
    assert spec["selector"]["app.kubernetes.io/component"] == "api"


def test_api_service_has_one_port() -> None:
    (port,) = find_object(render(), "Service", "busyapi")["spec"]["ports"]
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
def test_service_options_are_applied(service: Json, expected: Json) -> None:
    spec = find_object(render(OPEN | {"service": service}), "Service", "busyapi")["spec"]
    assert expected.items() <= spec.items()
    assert spec["ports"][0].get("nodePort") == service.get("nodePort")


def test_ingress_routes_the_public_paths() -> None:
    (ingress,) = of_kind(render(INGRESS), "Ingress")
    (rule,) = ingress["spec"]["rules"]
    assert {(path["path"], path["pathType"]) for path in rule["http"]["paths"]} == PUBLIC


def test_ingress_accepts_any_host_and_given_paths() -> None:
    host = {"host": "", "paths": [{"path": "/api/usages", "pathType": "Exact"}]}
    (ingress,) = of_kind(render(OPEN | {"ingress": {"enabled": True, "hosts": [host]}}), "Ingress")
    (rule,) = ingress["spec"]["rules"]
    assert "host" not in rule
    assert [path["path"] for path in rule["http"]["paths"]] == ["/api/usages"]


def test_ingress_has_class_tls_annotations_and_labels() -> None:
    options: Json = {
        "className": "traefik",
        "tls": [{"secretName": "t", "hosts": ["usages.example.org"]}],
        "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
        "labels": {"team": "inhalers"},
    }
    (ingress,) = of_kind(render(OPEN | {"ingress": INGRESS["ingress"] | options}), "Ingress")
    assert ingress["spec"]["ingressClassName"] == options["className"]
    assert ingress["spec"]["tls"] == options["tls"]
    assert ingress["metadata"]["annotations"] == options["annotations"]
    assert options["labels"].items() <= ingress["metadata"]["labels"].items()


@pytest.mark.parametrize("options", [{}, {"matches": []}])
def test_route_without_matches_routes_the_public_paths(options: Json) -> None:
    (route,) = of_kind(render(OPEN | {"httpRoute": ROUTE["httpRoute"] | options}), "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    kinds = {"PathPrefix": "Prefix", "Exact": "Exact"}
    paths = [match["path"] for match in rule["matches"]]
    assert {(path["value"], kinds[path["type"]]) for path in paths} == PUBLIC


def test_route_has_all_options() -> None:
    options: Json = {
        "hostnames": ["{{ .Release.Name }}.example.org"],
        "matches": [{"path": {"type": "Exact", "value": "/api/usages"}}],
        "filters": [{"type": "RequestHeaderModifier"}],
        "timeouts": {"request": "20s"},
        "annotations": {"a": "b"},
    }
    (route,) = of_kind(render(OPEN | {"httpRoute": ROUTE["httpRoute"] | options}), "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    assert route["spec"]["hostnames"] == ["busyapi.example.org"]
    assert {name: rule[name] for name in ("matches", "filters", "timeouts")} == {
        name: options[name] for name in ("matches", "filters", "timeouts")
    }


@pytest.mark.parametrize("component", ["api", "flusher", "test", "valkey"])
def test_policy_selects_its_pods_in_both_directions(component: str) -> None:
    spec = render_policy(component)
    assert spec["podSelector"] == make_peer(component)["podSelector"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}


def test_api_accepts_given_peers_and_is_scraped_only_by_monitoring() -> None:
    devices: Json = {"namespaceSelector": {"matchLabels": {"name": "ingress"}}}
    spec = render_policy(
        "api", {"networkPolicy": POLICY["networkPolicy"] | {"httpFrom": [devices]}}
    )
    monitoring = {"kubernetes.io/metadata.name": "monitoring"}
    by_port = {rule["ports"][0]["port"]: rule["from"] for rule in spec["ingress"]}
    assert by_port == {
        "http": [make_peer("test"), devices],
        "metrics": [{"namespaceSelector": {"matchLabels": monitoring}}],
    }


def test_by_default_policies_are_on_and_everyone_may_connect_to_the_api_only() -> None:
    assert of_kind(render(), "NetworkPolicy") == of_kind(render(POLICY), "NetworkPolicy")
    first, *others = render_policy("api")["ingress"]
    assert first == {"ports": [{"port": "http"}]}
    rules = [rule for name in ("flusher", "valkey") for rule in render_policy(name)["ingress"]]
    assert all(rule["from"] for rule in [*others, *rules])
    names = {
        document["metadata"]["name"] for document in of_kind(render(NO_POLICY), "NetworkPolicy")
    }
    assert names == {"busyapi-valkey"}


def test_api_reaches_only_redis_flushers_and_dns() -> None:
    assert render_policy("api")["egress"] == [
        {"to": [make_peer("valkey")], "ports": [{"port": "redis"}]},
        {"to": [make_peer("flusher")], "ports": [{"port": "archive"}]},
        *DNS,
    ]


def test_flusher_accepts_the_api_and_reaches_only_redis_and_dns() -> None:
    spec = render_policy("flusher")
    assert spec["ingress"][0] == {
        "from": [make_peer("api"), make_peer("test")],
        "ports": [{"port": "archive"}],
    }
    assert spec["egress"] == [{"to": [make_peer("valkey")], "ports": [{"port": "redis"}]}, *DNS]


def test_valkey_accepts_both_roles_and_opens_no_connections() -> None:
    spec = render_policy("valkey")
    both = [make_peer("api"), make_peer("flusher")]
    assert spec["ingress"] == [{"from": both, "ports": [{"port": "redis"}]}]
    assert spec["egress"] == []


def test_test_pod_reaches_api_flushers_and_dns_and_accepts_nothing() -> None:
    spec = render_policy("test")
    assert spec["ingress"] == []
    assert spec["egress"] == [
        {"to": [make_peer("api")], "ports": [{"port": "http"}]},
        {"to": [make_peer("flusher")], "ports": [{"port": "archive"}]},
        *DNS,
    ]
    assert not of_kind(render(POLICY | {"tests": {"enabled": False}}), "Pod")
    policies = of_kind(render(POLICY | {"tests": {"enabled": False}}), "NetworkPolicy")
    assert "busyapi-test" not in {document["metadata"]["name"] for document in policies}


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_every_pod_has_a_policy_if_policies_are_enabled(mode: Path) -> None:
    documents = render(values_of(mode) | POLICY)
    policies = of_kind(documents, "NetworkPolicy")
    selectors = [document["spec"]["podSelector"]["matchLabels"] for document in policies]
    for name, pod in pods(documents):
        labels = pod["metadata"]["labels"].items()
        assert any(selector.items() <= labels for selector in selectors), name


@pytest.mark.parametrize(
    "peers",
    [
        [{"ipBlock": {"cidr": "169.254.20.10/32"}}],
        [{"ipBlock": {"cidr": "fd00::a/128"}}, OPENSHIFT],
    ],
)
@pytest.mark.parametrize("component", ["api", "flusher", "test"])
def test_dns_can_be_restricted_to_given_servers(component: str, peers: list[Json]) -> None:
    spec = render_policy(component, {"networkPolicy": {"enabled": True, "dnsTo": peers}})
    assert spec["egress"][-2:] == [dns(53, *peers), dns(5353, *peers)]


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_no_policy_names_an_address_by_itself(mode: Path) -> None:
    """A rule with addresses of one IP family would close the other. DNS also has pods."""
    given = str(values_of(mode))
    for document in of_kind(render(values_of(mode) | POLICY), "NetworkPolicy"):
        text = str(document).replace(str(NODE_CACHE), "")
        assert "ipBlock" not in text or "ipBlock" in given


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_every_rule_names_ports_and_every_connection_to_dns_names_servers(mode: Path) -> None:
    given = str(values_of(mode))
    for document in of_kind(render(values_of(mode) | POLICY), "NetworkPolicy"):
        for rule in document["spec"].get("egress") or []:
            is_open = document["metadata"]["name"].endswith("-test-outside")
            assert is_open or rule.get("ports") or str(rule.get("to")) in given, rule
            ports = {port["port"] for port in rule.get("ports") or []}
            assert not ports & {53, 5353} or rule["to"]


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_what_no_policy_allows_is_denied_to_every_pod(mode: Path) -> None:
    documents = render(values_of(mode) | POLICY)
    spec = find_object(documents, "NetworkPolicy", "busyapi-deny")["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    assert not spec.keys() & {"ingress", "egress"}
    selector = spec["podSelector"]["matchLabels"].items()
    for name, pod in pods(documents):
        assert selector <= pod["metadata"]["labels"].items(), name
    off = render(values_of(mode) | {"networkPolicy": {"enabled": False}})
    assert "busyapi-deny" not in {document["metadata"]["name"] for document in off}


@pytest.mark.parametrize(
    ("keys", "to", "rule"),
    [
        ("https://p.example.org/jwks.json", [], {"ports": [{"port": 443}]}),
        ("https://p.example.org:8443/jwks.json", [], {"ports": [{"port": 8443}]}),
        ("https://[fd00::6]:8443/", [], {"ports": [{"port": 8443}]}),
        ("https://[fd00::6]/", [OPENSHIFT], {"ports": [{"port": 443}], "to": [OPENSHIFT]}),
        ("/etc/keys/jwks.json", [], None),
    ],
)
def test_only_the_api_reaches_the_provider_of_jwts(
    keys: str, to: list[Json], rule: Json | None
) -> None:
    jwt = {"keys": keys, "issuer": "i", "audience": "a"}
    values = {"auth": {"jwt": jwt}, "networkPolicy": {"enabled": True, "jwtTo": to}}
    for component in ("api", "flusher", "valkey"):
        plain, more = render_policy(component)["egress"], render_policy(component, values)["egress"]
        added = [entry for entry in more if entry not in plain]
        assert added == ([rule] if rule and component == "api" else [])


def test_policies_allow_the_address_of_an_external_redis() -> None:
    peers = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    options: Json = {"enabled": True, "externalRedis": {"to": peers, "ports": [6380]}}
    for component in ("api", "flusher"):
        first = render_policy(component, EXTERNAL | {"networkPolicy": options})["egress"][0]
        assert first == {"to": peers, "ports": [{"port": 6380}]}
    assert "valkey" not in {
        document["metadata"]["labels"]["app.kubernetes.io/component"]
        for document in of_kind(render(POLICY | EXTERNAL), "NetworkPolicy")
    }


@pytest.mark.parametrize(
    ("external", "ports"),
    [
        ({"host": "r", "port": 6380}, [6380]),
        ({"mode": "sentinel", "hosts": ["a:26380", "[fd00::6]:26381"]}, [26380, 26381, 6379]),
        ({"mode": "sentinel", "hosts": ["a", "b"]}, [26379, 6379]),
        ({"mode": "cluster", "hosts": ["a:7000", "b:7000", "c"]}, [7000, 6379]),
        (
            {
                "servers": [
                    {"partitions": 0, "host": "a", "port": 6380},
                    {"partitions": 1, "host": "b"},
                ]
            },
            [6380, 6379],
        ),
    ],
)
def test_policies_allow_the_ports_of_an_external_redis(external: Json, ports: list[int]) -> None:
    values = {"valkey": {"enabled": False}, "externalRedis": external}
    for component in ("api", "flusher"):
        assert render_policy(component, values)["egress"][0] == {
            "ports": [{"port": port} for port in ports]
        }


@pytest.mark.parametrize("component", ["api", "flusher", "valkey"])
def test_extra_rules_are_added_to_a_policy(component: str) -> None:
    extra: Json = {"extraIngress": [{"ports": [{"port": 1}]}], "extraEgress": [{"to": []}]}
    spec = render_policy(component, {"networkPolicy": {"enabled": True, component: extra}})
    assert spec["ingress"][-1] == extra["extraIngress"][0]
    assert spec["egress"][-1] == extra["extraEgress"][0]


def test_metrics_port_is_closed_without_metrics_peers() -> None:
    spec = render_policy("api", {"networkPolicy": {"enabled": True, "metricsFrom": []}})
    assert [rule["ports"][0]["port"] for rule in spec["ingress"]] == ["http"]


def find_scraped_components(document: Json, documents: list[Json]) -> set[str]:
    """Return the components whose metrics a monitor finds."""
    selector: Any = document["spec"]["selector"]["matchLabels"].items()
    if document["kind"] == "PodMonitor":
        all_pods = [pod for _, pod in pods(documents)]
        labels = [pod["metadata"]["labels"] for pod in all_pods]
        return {
            pod_labels["app.kubernetes.io/component"]
            for pod_labels in labels
            if selector <= pod_labels.items()
        }
    services = of_kind(documents, "Service")
    return {
        service["spec"]["selector"]["app.kubernetes.io/component"]
        for service in services
        if selector <= service["metadata"]["labels"].items()
        and document["spec"]["endpoints"][0]["port"]
        in {p["name"] for p in service["spec"]["ports"]}
    }


@pytest.mark.parametrize(
    ("option", "kind"), [("serviceMonitor", "ServiceMonitor"), ("podMonitor", "PodMonitor")]
)
def test_monitors_find_api_and_flusher_once(option: str, kind: str) -> None:
    options = {"enabled": True, "labels": {"release": "prometheus"}, "scrapeTimeout": "10s"}
    documents = render({"metrics": {option: options}})
    monitors = of_kind(documents, kind)
    assert [find_scraped_components(monitor, documents) for monitor in monitors] == [
        {"api"},
        {"flusher"},
    ]
    for monitor in monitors:
        (endpoint,) = monitor["spec"].get("endpoints") or monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["interval"] == "4s"
        assert endpoint["scrapeTimeout"] == "10s"
        assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_pods_have_scrape_annotations_only_if_enabled() -> None:
    options = {"metrics": {"annotations": {"enabled": True}}}
    for values, ports in (({}, {}), (options, {"api": "9090", "flusher": "9100"})):
        ports_by_component = {
            pod["metadata"]["labels"]["app.kubernetes.io/component"]: annotations[name]
            for _, pod in pods(render(values))
            if (name := "prometheus.io/port")
            in (annotations := pod["metadata"].get("annotations") or {})
        }
        assert ports_by_component == ports
