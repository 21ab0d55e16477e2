"""Values for each contradiction that the templates refuse."""

import re
from pathlib import Path

import helm_python

from testkit.chart.lookups import with_lookup
from testkit.chart.rendering import CHART, Json, render

FIXED: Json = {"autoscaling": {"enabled": False}}
SENTINEL: Json = {"mode": "sentinel", "hosts": ["s.example.org:26379"]}
MEMORY: Json = {"config": {"durability": "memory"}}

EXPOSED: dict[str, Json] = {
    "ingress.enabled=true": {"ingress": {"enabled": True, "hosts": [{"host": ""}]}},
    "httpRoute.enabled=true": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]}},
    "service.type=NodePort": {"service": {"type": "NodePort"}},
    "service.type=LoadBalancer": {"service": {"type": "LoadBalancer"}},
}
"""Values that make the API reachable from outside, by what the message names."""
TOKENS: Json = {"auth": {"existingSecret": "s"}}


def external(**options: object) -> Json:
    """Return values with an external Redis."""
    return {"valkey": {"enabled": False}, "externalRedis": {"host": "r.example.org"} | options}


def spread(*servers: Json, **options: object) -> Json:
    """Return values with several external servers."""
    return {"valkey": {"enabled": False}, "externalRedis": {"servers": servers, **options}}


def three(**config: object) -> Json:
    """Return values with three Valkey servers."""
    return {"config": config, "valkey": {"replicas": 3}}


def keda(**options: object) -> Json:
    """Return values with KEDA as the only autoscaler."""
    return FIXED | {"keda": {"enabled": True, "serverAddress": "http://p:9090"} | options}


# The start of the expected message, and the values that cause it.
REFUSALS: list[tuple[str, Json]] = [
    ("lake.enabled is true", {"lake": {"enabled": True, "warehouse": "s3://bucket/lake"}}),
    ("the objects would be named busyapi-A.b", {"nameOverride": "A.b"}),
    ("enabled is false", {"enabled": False}),
    (
        "valkey.enabled is true and externalRedis names a host",
        {"externalRedis": {"host": "r.example.org"}},
    ),
    ("no Redis", {"valkey": {"enabled": False}}),
    ("externalRedis.mode is standalone", external(hosts=["r.example.org:6379"])),
    ("externalRedis.mode is cluster: set", external(mode="cluster")),
    (
        "externalRedis.mode is sentinel: set externalRedis.masterName",
        external(host="", masterName="", **SENTINEL),
    ),
    ("externalRedis.servers names the servers", spread({"partitions": 0, "host": "a"}, host="b")),
    (
        "externalRedis.servers, partitions 0: externalRedis.mode is standalone, so the server",
        spread({"partitions": 0, "hosts": ["a"]}),
    ),
    (
        "externalRedis.servers, partitions 0: externalRedis.mode is cluster, so the server",
        spread({"partitions": 0, "host": "a"}, mode="cluster"),
    ),
    (
        "externalRedis.servers names partition 1 twice",
        spread({"partitions": "0-1", "host": "a"}, {"partitions": "1-3", "host": "b"}),
    ),
    (
        "externalRedis.servers names the server a:6379 twice",
        spread({"partitions": 0, "host": "a"}, {"partitions": 1, "host": "a", "port": 6379}),
    ),
    (
        "externalRedis.servers has no server for partition 0",
        spread({"partitions": "1-9", "host": "a"}),
    ),
    ("externalRedis.password and", external(password="p", existingSecret="s")),
    (
        "externalRedis.sentinel.password and",
        external(host="", sentinel={"password": "p", "existingSecret": "s"}, **SENTINEL),
    ),
    ("externalRedis.sentinel has a login", external(sentinel={"username": "u"})),
    ("externalRedis.tls.caSecret", external(tls={"caSecret": "ca"})),
    ("externalRedis.tls.clientSecret", external(tls={"clientSecret": "c"})),
    ("externalRedis has a login or TLS", {"externalRedis": {"username": "u"}}),
    (
        "valkey.tls.enabled is true, and the bundled Valkey is off",
        {
            "valkey": {"enabled": False, "tls": {"enabled": True}},
            "externalRedis": {"host": "r.example.org"},
        },
    ),
    *(
        ("valkey.tls names a certificate or a CA, and TLS is off", {"valkey": {"tls": tls}})
        for tls in ({"existingSecret": "s"}, {"issuerRef": {"name": "i"}}, {"caSecret": "s"})
    ),
    (
        "valkey.tls.existingSecret and valkey.tls.issuerRef.name both",
        {"valkey": {"tls": {"enabled": True, "existingSecret": "s", "issuerRef": {"name": "i"}}}},
    ),
    ("config.durability is replicated", {"config": {"durability": "replicated"}}),
    *((f"valkey.replicas is {n}", {"valkey": {"replicas": n}}) for n in (2, 4)),
    *(
        (f"config.durability is {tier}, and valkey.replicas is 3", three(durability=tier))
        for tier in ("fsync", "memory")
    ),
    ("config.minReplicas is 3, and 3 servers have 2 replicas", three(minReplicas=3)),
    ("flusher.persistence.enabled is false", {"flusher": {"persistence": {"enabled": False}}}),
    ("valkey.persistence.enabled is false", {"valkey": {"persistence": {"enabled": False}}}),
    *(
        (f"{setting} makes the API reachable from outside the cluster", values)
        for setting, values in EXPOSED.items()
    ),
    (
        "auth.jwt.keys is set without the issuer",
        {"auth": {"jwt": {"keys": "https://p.example.org/jwks.json", "issuer": "i"}}},
    ),
    ("auth.jwt has no keys", {"auth": {"jwt": {"issuer": "i", "audience": "a"}}}),
    (
        "auth.clientCertificates is set, and no proxy is trusted",
        {"auth": {"clientCertificates": "envoy", "existingSecret": "s"}},
    ),
    (
        "auth.clientCertificates is set, and no certificate has a name",
        {"auth": {"clientCertificates": "envoy", "trustedProxies": ["10.0.0.0/8"]}},
    ),
    (
        "auth.writerSalt.existingSecret is set, and no usage",
        {"auth": {"writerSalt": {"existingSecret": "s"}}},
    ),
    (
        "archivePort.tls has no certificate of the flushers",
        {"archivePort": {"tls": {"clientSecret": "s"}}},
    ),
    (
        "archivePort.tls has no certificate of the flushers",
        {"archivePort": {"tls": {"caSecret": "s"}}},
    ),
    (
        "autoscaling.enabled and keda.enabled",
        {"keda": {"enabled": True, "serverAddress": "http://p:9090"}},
    ),
    ("autoscaling.minReplicas is above", {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}),
    (
        "autoscaling.enabled is true without a target",
        {"autoscaling": {"targetCPUUtilizationPercentage": None}},
    ),
    (
        "autoscaling.targetCPUUtilizationPercentage is a percentage",
        {"resources": {"requests": {"cpu": None}}},
    ),
    (
        "autoscaling.targetMemoryUtilizationPercentage is a percentage",
        {
            "autoscaling": {"targetMemoryUtilizationPercentage": 80},
            "resources": {"requests": {"memory": None}},
        },
    ),
    ("metrics.probe.enabled is true without a URL", {"metrics": {"probe": {"enabled": True}}}),
    ("keda.minReplicas is above", keda(minReplicas=3, maxReplicas=2)),
    ("keda.enabled is true without a Prometheus", keda(serverAddress="")),
    (
        "priorityClass.api.value is not below",
        {"priorityClass": {"create": True, "api": {"value": 1000000}}},
    ),
    (
        "priorityClass.api.name and priorityClass.data.name are the same",
        {"priorityClass": {"create": True, "api": {"name": "a"}, "data": {"name": "a"}}},
    ),
    ("terminationGracePeriodSeconds must be above", {"terminationGracePeriodSeconds": 20}),
    ("ingress.enabled is true without a host", TOKENS | {"ingress": {"enabled": True}}),
    ("httpRoute.enabled is true without a Gateway", TOKENS | {"httpRoute": {"enabled": True}}),
    ("service.nodePort is set", {"service": {"nodePort": 30080}}),
    (
        "metrics.annotations.enabled and metrics.podMonitor.enabled are all true",
        {"metrics": {"annotations": {"enabled": True}, "podMonitor": {"enabled": True}}},
    ),
    (
        "metrics.prometheusRule.disabled has BusyapiBuferFull, which is not an alert",
        {"metrics": {"prometheusRule": {"disabled": {"BusyapiBuferFull": True}}}},
    ),
    (
        "metrics.prometheusRule.overrides has BusyapiBufferful, which is not an alert",
        {"metrics": {"prometheusRule": {"overrides": {"BusyapiBufferful": {"for": "1m"}}}}},
    ),
    (
        "metrics.prometheusRule.overrides.BusyapiLatencyBurn has an expr, and this alert has 4",
        {"metrics": {"prometheusRule": {"overrides": {"BusyapiLatencyBurn": {"expr": "1"}}}}},
    ),
    (
        "valkey.resources.limits.memory is not set",
        {"valkey": {"resources": {"limits": {"memory": None}}}},
    ),
    (
        "valkey.resources.limits.memory: 1Pi cannot be parsed",
        {"valkey": {"resources": {"limits": {"memory": "1Pi"}}}},
    ),
    (
        "valkey.resources.limits.memory is 64Mi, and 64Mi of it are reserved",
        {"valkey": {"resources": {"limits": {"memory": "64Mi"}}}},
    ),
    (
        "valkey.maxmemory is 1gb, which leaves less than 64Mi",
        {"valkey": {"maxmemory": "1gb"}},
    ),
]

_TEXT = r'\(?(?:printf )?"((?:[^"\\]|\\.)*)"'
_MESSAGE = re.compile(rf"(?:append \$errors|fail|required) {_TEXT}")
_FORMAT = "\n\n  busyapi: %s\n"
"""The format that joins the messages. It is not a message."""


def find_refusals(values: Json, chart: Path = CHART) -> list[str]:
    """Return the messages that these values are refused with.

    Raises:
        AssertionError: they are not refused.
    """
    try:
        render(values, chart=chart)
    except helm_python.HelmError as error:
        text = str(error)
    else:
        raise AssertionError("not refused")
    messages_listed = re.findall(r"^  busyapi: (.*)", text, re.MULTILINE)
    return messages_listed or [re.sub(r"^execution error at \(.*?\): ", "", text.splitlines()[-1])]


def make_storage_chart(folder: Path, *classes: str) -> Path:
    """Return the chart with a cluster that has these StorageClasses, as template expressions."""
    return with_lookup(folder, "StorageClass", f'(dict "items" (list {" ".join(classes)}))')


PLAIN_CLASS = '(dict "metadata" (dict "name" "plain"))'


def find_storage_refusals(folder: Path) -> list[str]:
    """Return a message of each kind about StorageClasses."""
    check: Json = {"parameters": {"encrypted": "true"}}
    plain, missing = ({"storageClass": name} for name in ("plain", "missing"))
    values: Json = {
        "storageClassCheck": check,
        "flusher": {"persistence": plain},
        "valkey": {"persistence": missing},
    }
    return find_refusals(values, make_storage_chart(folder, PLAIN_CLASS))


def messages() -> list[str]:
    """Return a pattern for each message in the templates."""
    texts = [
        text.replace('\\"', '"').replace("\\n", "\n")
        for template in sorted((CHART / "templates").rglob("*.*"))
        for text in _MESSAGE.findall(template.read_text())
    ]
    return [pattern(text) for text in texts if text != _FORMAT]


def pattern(text: str) -> str:
    """Return a format string as a regular expression."""
    return ".+?".join(re.escape(part) for part in re.split(r"%[sdqv]", text))
