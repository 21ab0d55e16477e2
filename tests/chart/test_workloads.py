"""Tests of each pod's rights, resources, probes and volumes, in every mode."""

from pathlib import Path
from typing import Any

import helm_python
import pytest

from busyapi.dev import program
from testkit.chart.rendering import (
    MODES,
    Json,
    containers,
    environment,
    find_object,
    mode_name,
    of_kind,
    pods,
    render,
    values_of,
)

EVERY_MODE = pytest.mark.parametrize("mode", MODES, ids=mode_name)
API = ("Deployment", "busyapi")
FLUSHER = ("StatefulSet", "busyapi-flusher")
VALKEY = ("StatefulSet", "busyapi-valkey")
CHART_CONTAINERS = {"api", "flusher", "valkey", "exporter", "test"}
WORKLOADS = [API, FLUSHER, VALKEY]


def workload(kind: str, name: str, values: Json | None = None) -> Json:
    return find_object(render(values), kind, name)


def pod_spec(kind: str, name: str, values: Json | None = None) -> Json:
    spec: Json = workload(kind, name, values)["spec"]["template"]["spec"]
    return spec


def main_container(kind: str, name: str, values: Json | None = None) -> Json:
    first: Json = pod_spec(kind, name, values)["containers"][0]
    return first


def chart_containers(pod: Json) -> list[Json]:
    """Return the containers of a pod without those that a user adds."""
    return [container for container in containers(pod) if container["name"] in CHART_CONTAINERS]


@EVERY_MODE
def test_no_pod_gets_a_token_or_the_environment_of_services(mode: Path) -> None:
    for name, pod in pods(render(values_of(mode))):
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        assert pod["spec"]["enableServiceLinks"] is False, name


@EVERY_MODE
def test_every_container_requests_cpu_and_memory_and_limits_only_memory(mode: Path) -> None:
    for name, pod in pods(render(values_of(mode))):
        for container in chart_containers(pod):
            resources = container["resources"]
            assert resources["requests"].keys() == {"cpu", "memory"}, name
            assert resources["limits"].keys() == {"memory"}, name


@EVERY_MODE
def test_every_root_file_system_is_read_only(mode: Path) -> None:
    for name, pod in pods(render(values_of(mode))):
        for container in chart_containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name


@EVERY_MODE
def test_every_mounted_volume_exists_and_every_volume_is_mounted(mode: Path) -> None:
    for document in render(values_of(mode)):
        for name, pod in pods([document]):
            claims = document["spec"].get("volumeClaimTemplates") or []
            volumes = [volume["name"] for volume in pod["spec"].get("volumes") or []]
            volumes += [claim["metadata"]["name"] for claim in claims]
            mounts = [m for c in containers(pod) for m in c.get("volumeMounts") or []]
            assert {mount["name"] for mount in mounts} == set(volumes), name
            assert len(volumes) == len(set(volumes)), name
            for container in containers(pod):
                paths = [mount["mountPath"] for mount in container.get("volumeMounts") or []]
                assert len(paths) == len(set(paths)), name


@EVERY_MODE
def test_no_variable_is_set_twice(mode: Path) -> None:
    for name, pod in pods(render(values_of(mode))):
        for container in containers(pod):
            assert len(environment(container)) == len(container.get("env") or []), name


@pytest.mark.parametrize("target", WORKLOADS)
def test_every_probe_exists_and_uses_an_existing_port(target: tuple[str, str]) -> None:
    container = main_container(*target)
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        handler = container[probe].get("httpGet") or container[probe].get("tcpSocket")
        assert handler is None or handler["port"] in ports
        assert container[probe]["periodSeconds"]
        assert container[probe]["timeoutSeconds"]
        assert container[probe]["failureThreshold"]


@pytest.mark.parametrize("target", [API, FLUSHER])
def test_liveness_checks_only_the_process_and_readiness_also_redis(
    target: tuple[str, str],
) -> None:
    container = main_container(*target)
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["startupProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize("target", WORKLOADS)
def test_only_tmp_and_the_volume_are_writable(target: tuple[str, str]) -> None:
    spec, container = pod_spec(*target), main_container(*target)
    kinds = {volume["name"]: set(volume) - {"name"} for volume in spec["volumes"]}
    for mount in container["volumeMounts"]:
        claimed = mount["name"] in {"archive", "data"}
        assert claimed or mount.get("readOnly") or kinds[mount["name"]] == {"emptyDir"}


def test_grace_period_of_an_api_pod_is_longer_than_its_shutdown() -> None:
    slow: Json = {"config": {"drainDelay": 20, "stopTimeout": 45.5}, "preStopSleepSeconds": 3}
    for values, minimum in (({}, 25), (slow, 69)):
        assert pod_spec(*API, values)["terminationGracePeriodSeconds"] > minimum
    assert main_container(*API, slow)["lifecycle"]["preStop"] == {"sleep": {"seconds": 3}}
    assert "lifecycle" not in main_container(*API)


def test_rollout_stops_an_api_pod_only_after_its_replacement_is_ready() -> None:
    spec = workload(*API)["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert spec["minReadySeconds"] > 0
    assert spec["progressDeadlineSeconds"] > spec["minReadySeconds"]


def test_first_process_is_the_program_itself() -> None:
    assert main_container(*API)["args"] == ["api"]
    assert main_container(*FLUSHER)["args"] == ["flusher", "--partition", "$(POD_INDEX)"]
    for target in (API, FLUSHER):
        assert "command" not in main_container(*target)
    command = main_container(*VALKEY)["command"]
    assert command == ["sh", "/etc/valkey/single.sh"]
    script = find_object(render(), "ConfigMap", "busyapi-valkey")["data"]["single.sh"]
    assert script.splitlines()[-1] == "exec valkey-server /etc/valkey/valkey.conf"


def test_ordinal_of_a_flusher_pod_is_its_partition() -> None:
    spec = workload(*FLUSHER, {"config": {"partitions": 4}})["spec"]
    assert spec["replicas"] == 4
    assert environment(main_container(*FLUSHER))["POD_INDEX"] == {
        "fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}
    }


@pytest.mark.parametrize("target", [FLUSHER, VALKEY])
def test_stateful_set_keeps_its_volume(target: tuple[str, str]) -> None:
    spec = workload(*target)["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }
    assert spec["podManagementPolicy"] == "Parallel"
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert pod_spec(*target)["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert target[1] == spec["serviceName"]


@pytest.mark.parametrize(
    ("storage_class", "rendered"),
    [(None, {}), ("-", {"storageClassName": ""}), ("fast", {"storageClassName": "fast"})],
)
@pytest.mark.parametrize(("section", "target"), [("flusher", FLUSHER), ("valkey", VALKEY)])
def test_storage_class_of_a_volume_is_applied(
    section: str, target: tuple[str, str], storage_class: Any, rendered: Json
) -> None:
    values = {section: {"persistence": {"storageClass": storage_class}}}
    (claim,) = workload(*target, values)["spec"]["volumeClaimTemplates"]
    assert {"storageClassName"} & claim["spec"].keys() == rendered.keys()
    assert rendered.items() <= claim["spec"].items()


def test_claim_has_only_labels_that_never_change() -> None:
    values = {"commonLabels": {"team": "inhalers"}}
    for document in of_kind(render(values), "StatefulSet"):
        for claim in document["spec"]["volumeClaimTemplates"]:
            labels = claim["metadata"].get("labels") or {}
            assert labels.keys() <= document["spec"]["selector"]["matchLabels"].keys()


@pytest.mark.parametrize("section", ["", "flusher", "valkey"])
def test_cluster_can_assign_the_user(section: str) -> None:
    free: Json = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    target = {"": API, "flusher": FLUSHER, "valkey": VALKEY}[section]
    context = pod_spec(*target, {section: free} if section else free)["securityContext"]
    assert context.keys() == {"runAsNonRoot", "fsGroupChangePolicy", "seccompProfile"}


def test_pods_spread_over_nodes_and_zones_without_blocking() -> None:
    constraints = pod_spec(*API)["topologySpreadConstraints"]
    keys = {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    assert {constraint["topologyKey"] for constraint in constraints} == keys
    assert {constraint["whenUnsatisfiable"] for constraint in constraints} == {"ScheduleAnyway"}
    selector = workload(*API)["spec"]["selector"]
    assert all(constraint["labelSelector"] == selector for constraint in constraints)
    constraint = {"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "k", "maxSkew": 1}
    values = {"topologySpreadConstraints": [constraint | {"whenUnsatisfiable": "DoNotSchedule"}]}
    assert (
        pod_spec(*API, values)["topologySpreadConstraints"][0]["labelSelector"]
        == constraint["labelSelector"]
    )


def test_changed_setting_rolls_out_both_roles() -> None:
    for target in (API, FLUSHER):
        before = workload(*target)["spec"]["template"]["metadata"]["annotations"]
        values = {"config": {"logLevel": "debug"}}
        after = workload(*target, values)["spec"]["template"]["metadata"]["annotations"]
        assert before["checksum/config"] != after["checksum/config"]


EXTRA: Json = {
    "podAnnotations": {"note": "added"},
    "podLabels": {"team": "added"},
    "nodeSelector": {"disk": "added"},
    "tolerations": [{"key": "added", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"added": []}},
    "priorityClassName": "added",
    "extraVolumes": [{"name": "added", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "added", "mountPath": "/added"}],
    "extraContainers": [{"name": "added", "image": "added"}],
}
ENVIRONMENT: Json = {
    "extraEnv": [{"name": "TZ", "value": "added"}],
    "extraEnvFrom": [{"secretRef": {"name": "added"}}],
}


@pytest.mark.parametrize("section", ["", "flusher", "valkey"])
def test_additions_of_a_user_are_applied(section: str) -> None:
    target = {"": API, "flusher": FLUSHER, "valkey": VALKEY}[section]
    extra = EXTRA if section == "valkey" else EXTRA | ENVIRONMENT
    template = workload(*target, {section: extra} if section else extra)["spec"]["template"]
    spec, container = template["spec"], template["spec"]["containers"][0]
    assert template["metadata"]["annotations"]["note"] == "added"
    assert template["metadata"]["labels"]["team"] == "added"
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert spec[name] == extra[name]
    assert extra["extraVolumes"][0] in spec["volumes"]
    assert extra["extraVolumeMounts"][0] in container["volumeMounts"]
    assert extra["extraContainers"][0] in spec["containers"]
    if section != "valkey":
        assert environment(container)["TZ"] == "added"
        assert extra["extraEnvFrom"][0] in container["envFrom"]


def test_extra_objects_are_templated_as_maps_and_as_text() -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-text'}"
    mapping = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}"}}
    documents = render({"extraObjects": [text, mapping], "fullnameOverride": "other"})
    assert find_object(documents, "ConfigMap", "busyapi-text")
    assert find_object(documents, "ConfigMap", "busyapi")


def test_extra_config_cannot_weaken_durability() -> None:
    extra = "appendonly no\nappendfsync no\nmaxmemory-policy lru\nslowlog-max-len 256"
    values = {"valkey": {"extraConfig": extra}}
    text = find_object(render(values), "ConfigMap", "busyapi-valkey")["data"]["valkey.conf"]
    last = dict(line.split(None, 1) for line in text.splitlines() if line)
    assert last["slowlog-max-len"] == "256"
    assert last["appendonly"] == "yes"
    assert last["appendfsync"] == "always"
    assert last["no-appendfsync-on-rewrite"] == "no"
    assert last["auto-aof-rewrite-min-size"] == program.VALKEY["auto-aof-rewrite-min-size"]
    assert last["maxmemory-policy"] == "noeviction"


@pytest.mark.parametrize(
    ("limit", "maxmemory"),
    [
        ("1Gi", 805306368),
        ("512Mi", 402653184),
        ("1.5Gi", 1207959552),
        ("2G", 1500000000),
        ("256Mi", 201326592),
        # 64Mi remain.
        ("128Mi", 67108864),
        ("96Mi", 33554432),
    ],
)
def test_valkey_uses_three_quarters_of_its_limit_and_leaves_64_mi(
    limit: str, maxmemory: int
) -> None:
    values = {"valkey": {"resources": {"limits": {"memory": limit}}}}
    text = find_object(render(values), "ConfigMap", "busyapi-valkey")["data"]["valkey.conf"]
    assert f"maxmemory {maxmemory}\n" in text


@pytest.mark.parametrize(
    ("maxmemory", "limit"),
    [("64mb", "128Mi"), ("1gb", "1088Mi"), ("1G", "1024Mi"), ("67108864", "128Mi"), ("9gb", None)],
)
def test_maxmemory_is_taken_as_it_is_if_64_mi_remain(maxmemory: str, limit: str | None) -> None:
    values = {"valkey": {"maxmemory": maxmemory, "resources": {"limits": {"memory": limit}}}}
    text = find_object(render(values), "ConfigMap", "busyapi-valkey")["data"]["valkey.conf"]
    assert f"maxmemory {maxmemory}\n" in text


@pytest.mark.parametrize(
    ("maxmemory", "limit"), [("65mb", "128Mi"), ("1gb", "1Gi"), ("1073741824", "1G"), ("0", "1Gi")]
)
def test_maxmemory_that_leaves_less_than_64_mi_is_refused(maxmemory: str, limit: str) -> None:
    values = {"valkey": {"maxmemory": maxmemory, "resources": {"limits": {"memory": limit}}}}
    with pytest.raises(helm_python.HelmError, match="leaves less than 64Mi"):
        render(values)
