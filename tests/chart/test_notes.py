"""Tests of the notes of `helm install`: the curl line works, and each warning appears when due."""

import json
import shlex
from pathlib import Path

import pytest

from testkit.chart.lookups import with_lookup
from testkit.chart.rendering import (
    MODES,
    OPEN,
    Json,
    find_object,
    mode_name,
    of_kind,
    render,
    render_notes,
    values_of,
)

MEMORY: Json = {"config": {"durability": "memory"}}
NOT_KEPT = {"persistence": {"enabled": False}}
WARNINGS = {
    "config.durability is memory": MEMORY,
    "flusher.persistence.enabled is false": MEMORY | {"flusher": NOT_KEPT},
    "valkey.persistence.enabled is false": MEMORY | {"valkey": NOT_KEPT},
}
ON: dict[str, Json] = {
    "credentials": {"auth": {"existingSecret": "s"}},
    "access from outside": OPEN | {"ingress": {"enabled": True, "hosts": [{"host": ""}]}},
    "reading of own usages": {"auth": {"writerSalt": {"enabled": True}}},
    "TLS between API and flushers": {"archivePort": {"tls": {"existingSecret": "s"}}},
    "TLS to Valkey": {"valkey": {"tls": {"enabled": True}}},
    "network policies": {"networkPolicy": {"enabled": True}},
    "metrics": {"metrics": {"podMonitor": {"enabled": True}}},
    "scaling": {},
}
HOST: Json = {"enabled": True, "hosts": [{"host": "{{ .Release.Name }}.example.org"}]}


def command(text: str, start: str) -> list[str]:
    """Return the words of the only line that starts with this text, as a shell splits it."""
    (line,) = (line for line in text.splitlines() if line.strip().startswith(start))
    return shlex.split(line)


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_notes_of_every_mode_are_complete(mode: Path) -> None:
    text = render_notes(values_of(mode))
    assert "<no value>" not in text
    assert "%!" not in text
    assert "curl -X POST" in text


def test_curl_line_posts_a_valid_usage() -> None:
    words = command(render_notes(), "curl")
    body = words[words.index("--data") + 1]
    assert words[-1] == "http://localhost:3000/api/usages"
    assert words[1:3] == ["-X", "POST"]
    assert "Content-Type: application/json" in words
    assert json.loads(body) == {
        "patientId": "100",
        "timestamp": "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",
        "medication": "Albuterol",
    }
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert f"--data '{body}' http://localhost:3000/api/usages" in readme


def test_port_forward_names_the_service_and_its_port() -> None:
    values: Json = {"service": {"port": 8080}, "fullnameOverride": "it"}
    words = command(render_notes(values), "kubectl -n usages port-forward")
    assert words[-2:] == ["service/it", "3000:8080"]
    assert find_object(render(values), "Service", "it")["spec"]["ports"][0]["port"] == 8080


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({"ingress": HOST}, "http://busyapi.example.org"),
        (
            {"ingress": HOST | {"tls": [{"secretName": "t", "hosts": ["busyapi.example.org"]}]}},
            "https://busyapi.example.org",
        ),
        (
            {
                "httpRoute": {
                    "enabled": True,
                    "parentRefs": [{"name": "g"}],
                    "hostnames": ["u.example.org"],
                }
            },
            "http://u.example.org",
        ),
    ],
)
def test_curl_line_uses_the_host_of_the_ingress_or_route(values: Json, url: str) -> None:
    text = render_notes(OPEN | values)
    assert command(text, "curl")[-1] == f"{url}/api/usages"
    assert "port-forward" not in text


def test_curl_line_has_the_token_of_helm_test_unless_everyone_may_post() -> None:
    assert "Authorization: Bearer $TOKEN" in command(render_notes(), "curl")
    for values in ({}, {"tests": {"existingSecret": "mine"}}):
        secret = command(render_notes(values), "TOKEN=$(kubectl")[5]
        mounted = find_object(render(values), "Pod", "busyapi-test")["spec"]["volumes"]
        assert secret in {volume["secret"]["secretName"] for volume in mounted}
    without = {"tests": {"enabled": False}}
    assert command(render_notes(without), "TOKEN=") == ["TOKEN=…"]
    assert "Authorization: Bearer $TOKEN" in command(render_notes(without), "curl")
    writes: Json = {"auth": {"allowAnonymousWrites": True}}
    assert not any("Authorization" in word for word in command(render_notes(writes), "curl"))
    assert "TOKEN" not in render_notes(OPEN)


def test_notes_say_how_to_give_a_client_a_credential() -> None:
    text = render_notes()
    words = command(text, "helm upgrade")
    assert words[-2:] == ["--set-file", "auth.credentials=credentials.toml"]
    assert (Path(__file__).parents[2] / "docs" / "how-to" / "authentication.md").exists()
    existing = render_notes({"auth": {"existingSecret": "mine", "existingSecretKey": "k"}})
    assert "to the key k of the Secret mine" in existing
    assert "--set-file" not in existing
    assert "Give a client" not in render_notes(OPEN)


@pytest.mark.parametrize(
    ("setting", "warning"),
    [
        ("allowAnonymousWrites", "may post usages."),
        ("allowAnonymousReads", "may read the usages of every"),
    ],
)
def test_anonymous_requests_are_warned_of(setting: str, warning: str) -> None:
    text = render_notes({"auth": {setting: True}})
    assert text.count("WARNING: auth.allowAnonymous") == 1
    assert f"WARNING: auth.{setting} is true. Everyone who can reach the API {warning}" in text
    assert "WARNING: auth." not in render_notes()


def test_old_format_of_tokens_is_warned_of() -> None:
    assert "WARNING: auth.tokens has the format of 0.2.0" in render_notes(
        {"auth": {"tokens": "read t"}}
    )


def test_notes_have_a_command_for_each_partition() -> None:
    text = render_notes({"config": {"partitions": 3}})
    for partition in range(3):
        assert f"exec busyapi-flusher-{partition} -- busyapi archive ls" in text
    assert "busyapi-flusher-3" not in text


@pytest.mark.parametrize("warning", WARNINGS)
def test_warning_appears_when_due(warning: str) -> None:
    assert warning in render_notes(WARNINGS[warning])


@pytest.mark.parametrize("kind", ["prometheusRule", "dashboards"])
def test_warning_appears_when_runbook_url_is_not_a_url(kind: str) -> None:
    warning = "WARNING: metrics.prometheusRule.runbookUrl"
    on: Json = {kind: {"enabled": True}}
    text = render_notes({"metrics": on})
    assert warning in text
    (_, option) = command(text, "--set metrics.prometheusRule.runbookUrl=")
    url = option.partition("=")[2]
    rule = on.get("prometheusRule", {}) | {"runbookUrl": url}
    assert warning not in render_notes({"metrics": on | {"prometheusRule": rule}})
    assert warning not in render_notes()


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_no_warning_appears_when_not_due(mode: Path) -> None:
    values, text = values_of(mode), render_notes(values_of(mode))
    durability = (values.get("config") or {}).get("durability", "fsync")
    assert ("config.durability is memory" in text) == (durability == "memory")
    stateful = of_kind(render(values), "StatefulSet")
    for name in ("flusher", "valkey"):
        matches = [
            document for document in stateful if document["metadata"]["name"] == f"busyapi-{name}"
        ]
        kept = not matches or matches[0]["spec"].get("volumeClaimTemplates")
        assert (f"{name}.persistence.enabled is false" in text) == (not kept)


def test_notes_list_only_disabled_features() -> None:
    fixed: Json = {"autoscaling": {"enabled": False}, "networkPolicy": {"enabled": False}}
    everything_off = render_notes(fixed).partition("\nNot enabled\n")[2]
    assert all(f"\n- {name}" in everything_off for name in ON)
    for name, values in ON.items():
        assert f"\n- {name}" not in render_notes(values)


def test_notes_say_how_to_delete_volumes_if_there_are_any() -> None:
    labels = "app.kubernetes.io/name=busyapi,app.kubernetes.io/instance=busyapi"
    assert f"kubectl -n usages delete pvc -l {labels}" in render_notes()
    for document in of_kind(render(), "StatefulSet"):
        for claim in document["spec"]["volumeClaimTemplates"]:
            claim_labels = claim["metadata"]["labels"]
            assert all(
                f"{name}={claim_labels[name]}" in labels
                for name in claim_labels
                if "comp" not in name
            )
    none = MEMORY | {"flusher": NOT_KEPT, "valkey": NOT_KEPT}
    assert "delete pvc" not in render_notes(none)


SCALED = '(dict "metadata" (dict "labels" dict) "spec" (dict "replicas" %d))'
CPU: Json = {"autoscaling": {"minReplicas": 3}}
KEDA: Json = {
    "autoscaling": {"enabled": False},
    "keda": {"enabled": True, "minReplicas": 4, "serverAddress": "http://p:9090"},
}


@pytest.mark.parametrize(("values", "replicas"), [(CPU, 3), (KEDA, 4)])
def test_warning_appears_for_an_autoscaled_deployment_that_was_scaled_to_0(
    values: Json, replicas: int, tmp_path: Path
) -> None:
    chart = with_lookup(tmp_path, "Deployment", SCALED % 0)
    text = render_notes(values, chart=chart, upgrade=True)
    assert "the Deployment busyapi was scaled to 0" in text
    words = command(text, "kubectl -n usages scale")
    assert words[-2:] == ["deployment/busyapi", f"--replicas={replicas}"]


def test_no_warning_appears_for_other_deployments(tmp_path: Path) -> None:
    assert "scaled to 0" not in render_notes()
    running = with_lookup(tmp_path / "running", "Deployment", SCALED % 1)
    assert "scaled to 0" not in render_notes(chart=running, upgrade=True)
    # An upgrade sets the number of pods again if no autoscaler does.
    stopped = with_lookup(tmp_path / "stopped", "Deployment", SCALED % 0)
    fixed: Json = {"autoscaling": {"enabled": False}}
    assert "scaled to 0" not in render_notes(fixed, chart=stopped, upgrade=True)


def test_warning_about_the_namespace_appears_if_there_are_volumes() -> None:
    warning = "WARNING: kubectl delete namespace usages deletes the volumes"
    assert warning in render_notes()
    assert warning not in render_notes(MEMORY | {"flusher": NOT_KEPT, "valkey": NOT_KEPT})


def test_notes_say_what_the_single_valkey_costs() -> None:
    note = "Valkey is one pod. While it restarts, devices get 503"
    assert note in render_notes()
    assert (Path(__file__).parents[2] / "docs" / "how-to" / "lost-node.md").exists()
    external: Json = {"valkey": {"enabled": False}, "externalRedis": {"host": "r.example.org"}}
    assert note not in render_notes(external)
