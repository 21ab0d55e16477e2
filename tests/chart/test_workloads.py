"""What each pod is allowed, given and asked, in every mode."""

from pathlib import Path
from typing import Any

import pytest

from testkit.chart.rendering import (
    MODES,
    Json,
    containers,
    environment,
    mode_name,
    of_kind,
    one,
    pods,
    render,
    values_of,
)

EVERY_MODE = pytest.mark.parametrize("mode", MODES, ids=mode_name)
API = ("Deployment", "busyapi")
FLUSHER = ("StatefulSet", "busyapi-flusher")
VALKEY = ("StatefulSet", "busyapi-valkey")
OURS = {"api", "flusher", "valkey", "test"}
WORKLOADS = [API, FLUSHER, VALKEY]


def workload(kind: str, name: str, values: Json | None = None) -> Json:
    return one(render(values), kind, name)


def pod(kind: str, name: str, values: Json | None = None) -> Json:
    found: Json = workload(kind, name, values)["spec"]["template"]["spec"]
    return found


def container(kind: str, name: str, values: Json | None = None) -> Json:
    found: Json = pod(kind, name, values)["containers"][0]
    return found


def ours(pod: Json) -> list[Json]:
    """A pod's containers, but for those that a user adds."""
    return [each for each in containers(pod) if each["name"] in OURS]


@EVERY_MODE
def test_no_pod_gets_a_token_or_the_environment_of_services(mode: Path) -> None:
    for name, each in pods(render(values_of(mode))):
        assert each["spec"]["automountServiceAccountToken"] is False, name
        assert each["spec"]["enableServiceLinks"] is False, name


@EVERY_MODE
def test_every_container_asks_for_cpu_and_memory_and_is_bounded_in_memory_alone(mode: Path) -> None:
    for name, each in pods(render(values_of(mode))):
        for one_of in ours(each):
            resources = one_of["resources"]
            assert resources["requests"].keys() == {"cpu", "memory"}, name
            assert resources["limits"].keys() == {"memory"}, name


@EVERY_MODE
def test_every_root_file_system_is_read_only(mode: Path) -> None:
    for name, each in pods(render(values_of(mode))):
        for one_of in ours(each):
            assert one_of["securityContext"]["readOnlyRootFilesystem"] is True, name


@EVERY_MODE
def test_every_volume_that_is_mounted_is_there_and_the_other_way_round(mode: Path) -> None:
    for document in render(values_of(mode)):
        for name, each in pods([document]):
            claims = document["spec"].get("volumeClaimTemplates") or []
            there = [volume["name"] for volume in each["spec"].get("volumes") or []]
            there += [claim["metadata"]["name"] for claim in claims]
            mounts = [m for c in containers(each) for m in c.get("volumeMounts") or []]
            assert {mount["name"] for mount in mounts} == set(there), name
            assert len(there) == len(set(there)), name
            for one_of in containers(each):
                paths = [mount["mountPath"] for mount in one_of.get("volumeMounts") or []]
                assert len(paths) == len(set(paths)), name


@EVERY_MODE
def test_no_variable_is_given_twice(mode: Path) -> None:
    for name, each in pods(render(values_of(mode))):
        for one_of in containers(each):
            assert len(environment(one_of)) == len(one_of.get("env") or []), name


@pytest.mark.parametrize("which", WORKLOADS)
def test_every_probe_is_there_and_names_a_port_that_is_there(which: tuple[str, str]) -> None:
    it = container(*which)
    ports = {port["name"] for port in it["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        handler = it[probe].get("httpGet") or it[probe].get("tcpSocket")
        assert handler is None or handler["port"] in ports
        assert it[probe]["periodSeconds"]
        assert it[probe]["timeoutSeconds"]
        assert it[probe]["failureThreshold"]


@pytest.mark.parametrize("which", [API, FLUSHER])
def test_liveness_asks_the_process_alone_and_readiness_asks_for_redis_too(
    which: tuple[str, str],
) -> None:
    it = container(*which)
    assert it["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert it["startupProbe"]["httpGet"]["path"] == "/livez"
    assert it["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize("which", WORKLOADS)
def test_only_tmp_and_the_volume_can_be_written(which: tuple[str, str]) -> None:
    whole, it = pod(*which), container(*which)
    kinds = {each["name"]: set(each) - {"name"} for each in whole["volumes"]}
    for mount in it["volumeMounts"]:
        claimed = mount["name"] in {"archive", "data"}
        assert claimed or mount.get("readOnly") or kinds[mount["name"]] == {"emptyDir"}


def test_an_api_pod_has_more_grace_than_it_waits_and_stops() -> None:
    slow: Json = {"config": {"drainDelay": 20, "stopTimeout": 45.5}, "preStopSleepSeconds": 3}
    for values, least in (({}, 25), (slow, 69)):
        assert pod(*API, values)["terminationGracePeriodSeconds"] > least
    assert container(*API, slow)["lifecycle"]["preStop"] == {"sleep": {"seconds": 3}}
    assert "lifecycle" not in container(*API)


def test_a_rollout_takes_no_api_pod_away_before_its_successor_is_ready() -> None:
    spec = workload(*API)["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert spec["minReadySeconds"] > 0
    assert spec["progressDeadlineSeconds"] > spec["minReadySeconds"]


def test_process_one_is_the_program_itself() -> None:
    assert container(*API)["args"] == ["api"]
    assert container(*FLUSHER)["args"] == ["flusher", "--partition", "$(POD_INDEX)"]
    for which in (API, FLUSHER):
        assert "command" not in container(*which)
    assert container(*VALKEY)["command"][0] == "valkey-server"


def test_a_flusher_pod_s_ordinal_is_its_partition() -> None:
    spec = workload(*FLUSHER, {"config": {"partitions": 4}})["spec"]
    assert spec["replicas"] == 4
    assert environment(container(*FLUSHER))["POD_INDEX"] == {
        "fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}
    }


@pytest.mark.parametrize("which", [FLUSHER, VALKEY])
def test_a_stateful_set_keeps_its_volume(which: tuple[str, str]) -> None:
    spec = workload(*which)["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }
    assert spec["podManagementPolicy"] == "Parallel"
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert pod(*which)["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert which[1] == spec["serviceName"]


@pytest.mark.parametrize(
    ("storage_class", "rendered"),
    [(None, {}), ("-", {"storageClassName": ""}), ("fast", {"storageClassName": "fast"})],
)
@pytest.mark.parametrize(("section", "which"), [("flusher", FLUSHER), ("valkey", VALKEY)])
def test_the_class_of_a_volume(
    section: str, which: tuple[str, str], storage_class: Any, rendered: Json
) -> None:
    values = {section: {"persistence": {"storageClass": storage_class}}}
    (claim,) = workload(*which, values)["spec"]["volumeClaimTemplates"]
    assert {"storageClassName"} & claim["spec"].keys() == rendered.keys()
    assert rendered.items() <= claim["spec"].items()


def test_a_claim_carries_no_label_that_ever_changes() -> None:
    values = {"commonLabels": {"team": "inhalers"}}
    for document in of_kind(render(values), "StatefulSet"):
        for claim in document["spec"]["volumeClaimTemplates"]:
            labels = claim["metadata"].get("labels") or {}
            assert labels.keys() <= document["spec"]["selector"]["matchLabels"].keys()


@pytest.mark.parametrize("section", ["", "flusher", "valkey"])
def test_the_user_can_be_left_to_the_cluster(section: str) -> None:
    free: Json = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    which = {"": API, "flusher": FLUSHER, "valkey": VALKEY}[section]
    context = pod(*which, {section: free} if section else free)["securityContext"]
    assert context.keys() == {"runAsNonRoot", "fsGroupChangePolicy", "seccompProfile"}


def test_spread_is_over_nodes_and_zones_and_never_keeps_a_pod_waiting() -> None:
    found = pod(*API)["topologySpreadConstraints"]
    keys = {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    assert {each["topologyKey"] for each in found} == keys
    assert {each["whenUnsatisfiable"] for each in found} == {"ScheduleAnyway"}
    selector = workload(*API)["spec"]["selector"]
    assert all(each["labelSelector"] == selector for each in found)
    own = {"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "k", "maxSkew": 1}
    mine = {"topologySpreadConstraints": [own | {"whenUnsatisfiable": "DoNotSchedule"}]}
    assert pod(*API, mine)["topologySpreadConstraints"][0]["labelSelector"] == own["labelSelector"]


def test_a_changed_setting_rolls_both_roles_out() -> None:
    for which in (API, FLUSHER):
        before = workload(*which)["spec"]["template"]["metadata"]["annotations"]
        values = {"config": {"logLevel": "debug"}}
        after = workload(*which, values)["spec"]["template"]["metadata"]["annotations"]
        assert before["checksum/config"] != after["checksum/config"]


EXTRA: Json = {
    "podAnnotations": {"note": "there"},
    "podLabels": {"team": "there"},
    "nodeSelector": {"disk": "there"},
    "tolerations": [{"key": "there", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"there": []}},
    "priorityClassName": "there",
    "extraVolumes": [{"name": "there", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "there", "mountPath": "/there"}],
    "extraContainers": [{"name": "there", "image": "there"}],
}
ENVIRONMENT: Json = {
    "extraEnv": [{"name": "TZ", "value": "there"}],
    "extraEnvFrom": [{"secretRef": {"name": "there"}}],
}


@pytest.mark.parametrize("section", ["", "flusher", "valkey"])
def test_what_a_user_adds_is_there(section: str) -> None:
    which = {"": API, "flusher": FLUSHER, "valkey": VALKEY}[section]
    extra = EXTRA if section == "valkey" else EXTRA | ENVIRONMENT
    template = workload(*which, {section: extra} if section else extra)["spec"]["template"]
    spec, it = template["spec"], template["spec"]["containers"][0]
    assert template["metadata"]["annotations"]["note"] == "there"
    assert template["metadata"]["labels"]["team"] == "there"
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert spec[name] == extra[name]
    assert extra["extraVolumes"][0] in spec["volumes"]
    assert extra["extraVolumeMounts"][0] in it["volumeMounts"]
    assert extra["extraContainers"][0] in spec["containers"]
    if section != "valkey":
        assert environment(it)["TZ"] == "there"
        assert extra["extraEnvFrom"][0] in it["envFrom"]


def test_extra_objects_are_templated_as_maps_and_as_text() -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-text'}"
    mapping = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}"}}
    documents = render({"extraObjects": [text, mapping], "fullnameOverride": "other"})
    assert one(documents, "ConfigMap", "busyapi-text")
    assert one(documents, "ConfigMap", "busyapi")


def test_valkey_keeps_what_a_201_promises_whatever_is_added() -> None:
    extra = "appendonly no\nappendfsync no\nmaxmemory-policy lru\nslowlog-max-len 256"
    values = {"valkey": {"extraConfig": extra}}
    text = one(render(values), "ConfigMap", "busyapi-valkey")["data"]["valkey.conf"]
    last = dict(line.split(None, 1) for line in text.splitlines() if line)
    assert last["slowlog-max-len"] == "256"
    assert last["appendonly"] == "yes"
    assert last["appendfsync"] == "always"
    assert last["no-appendfsync-on-rewrite"] == "no"
    assert last["maxmemory-policy"] == "noeviction"


@pytest.mark.parametrize(
    ("limit", "figure"),
    [("1Gi", 805306368), ("512Mi", 402653184), ("1.5Gi", 1207959552), ("2G", 1500000000)],
)
def test_valkey_uses_three_quarters_of_its_limit(limit: str, figure: int) -> None:
    values = {"valkey": {"resources": {"limits": {"memory": limit}}}}
    text = one(render(values), "ConfigMap", "busyapi-valkey")["data"]["valkey.conf"]
    assert f"maxmemory {figure}\n" in text
