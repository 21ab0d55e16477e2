"""`busyapi lake`: off by default, beside each flusher, reading its volume and nothing else."""

from busyapi.settings import Settings
from testkit.chart.rendering import Json, environment, find_object, pods, render

ENABLED: Json = {
    "lake": {
        "enabled": True,
        "warehouse": "s3://bucket/lake",
        "catalog": "https://catalog.example.org",
    }
}
MONITORS = {"ServiceMonitor": "endpoints", "PodMonitor": "podMetricsEndpoints"}
FLUSHER = "StatefulSet/busyapi-flusher"


def find_containers(values: Json) -> dict[str, Json]:
    """Return the containers of a flusher pod by name."""
    spec = dict(pods(render(values)))[FLUSHER]["spec"]
    return {container["name"]: container for container in spec["containers"]}


def render_monitored(kind: str, values: Json) -> list[Json]:
    """Return the objects with this monitor and the rules."""
    monitor = f"{kind[0].lower()}{kind[1:]}"
    metrics = {name: {"enabled": True} for name in (monitor, "prometheusRule")}
    return render({"metrics": metrics, **values})


def test_lake_is_off_by_default() -> None:
    assert [*find_containers({})] == ["flusher"]
    for kind in MONITORS:
        documents = render_monitored(kind, {})
        for other in ("NetworkPolicy", "Service", kind):
            assert "lake" not in str(find_object(documents, other, "busyapi-flusher"))
        assert "BusyapiLake" not in str(find_object(documents, "PrometheusRule", "busyapi"))


def test_lake_is_scraped_beside_its_flusher() -> None:
    (port,) = find_containers(ENABLED)["lake"]["ports"]
    assert port == {"name": "lake", "containerPort": Settings().lake_metrics_port}
    for kind, field in MONITORS.items():
        documents = render_monitored(kind, ENABLED)
        flusher, lake = find_object(documents, kind, "busyapi-flusher")["spec"][field]
        assert lake == {**flusher, "port": "lake"}
        assert "BusyapiLake" in str(find_object(documents, "PrometheusRule", "busyapi"))
    service, policy = (
        find_object(documents, kind, "busyapi-flusher")["spec"]
        for kind in ("Service", "NetworkPolicy")
    )
    assert {port["name"]: port["targetPort"] for port in service["ports"]}["lake"] == "lake"
    flusher, lake = policy["ingress"][1:]
    assert lake == {**flusher, "ports": [{"port": "lake"}]}


def test_lake_reads_the_volume_of_its_flusher_and_has_no_access_to_redis() -> None:
    containers = find_containers(ENABLED)
    lake, flusher = containers["lake"], containers["flusher"]
    assert lake["args"] == ["lake", "--partition", "$(POD_INDEX)"]
    assert lake["image"].startswith("busyapi-lake:")
    assert environment(lake) == environment(lake) | {
        "BUSYAPI_LAKE_WAREHOUSE": "s3://bucket/lake",
        "BUSYAPI_LAKE_CATALOG": "https://catalog.example.org",
        "BUSYAPI_LAKE_TABLE": "busyapi.usages",
        "BUSYAPI_LAKE_INTERVAL": "60",
        "BUSYAPI_LAKE_SNAPSHOT_HOURS": "24",
    }
    assert lake["securityContext"] == flusher["securityContext"]
    mounts = {mount["mountPath"]: mount for mount in lake["volumeMounts"]}
    assert mounts.keys() == {"/var/lib/busyapi", "/tmp"}  # noqa: S108 - of the container
    assert mounts["/var/lib/busyapi"]["readOnly"]
    assert not any(name.endswith("Probe") for name in lake), "its failure is not the flusher's"


def test_lake_may_connect_to_the_catalog_and_the_store() -> None:
    rule = {"ports": [{"port": 8181}], "to": [{"ipBlock": {"cidr": "10.2.0.0/16"}}]}
    for egress, expected in (([], {"ports": [{"port": 443}]}), ([rule], rule)):
        values: Json = {"lake": {**ENABLED["lake"], "egress": egress}}
        policy = find_object(render(values), "NetworkPolicy", "busyapi-flusher")
        assert expected in policy["spec"]["egress"]
