"""Each contradiction in values is refused with one message that says what to set."""

import re
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from testkit.chart.lookups import with_lookup
from testkit.chart.refused_values import (
    REFUSALS,
    find_refusals,
    find_storage_refusals,
    messages,
)
from testkit.chart.rendering import Json, find_object, render

PASSWORDS = {"api-password": "an-old-one", "flusher-password": "another-old-one"}


def make_installed_chart(folder: Path) -> Path:
    """Return the chart with an installed release of four partitions."""
    return with_lookup(folder, "ConfigMap", '(dict "data" (dict "BUSYAPI_PARTITIONS" "4"))')


@pytest.mark.parametrize(("start", "values"), REFUSALS, ids=[start for start, _ in REFUSALS])
def test_contradiction_is_refused_with_one_message(start: str, values: Json) -> None:
    (message,) = find_refusals(values)
    assert start in message


def find_unmatched(patterns: list[str], messages_given: list[str]) -> list[str]:
    """Return messages without a test, and given messages that no template has."""
    return [
        pattern
        for pattern in patterns
        if not any(re.fullmatch(pattern, text) for text in messages_given)
    ] + [
        text
        for text in messages_given
        if not any(re.fullmatch(pattern, text) for pattern in patterns)
    ]


def test_each_message_in_the_templates_has_a_test_and_vice_versa(tmp_path: Path) -> None:
    messages_given = [message for _, values in REFUSALS for message in find_refusals(values)]
    messages_given += find_refusals({"config": {"partitions": 2}}, make_installed_chart(tmp_path))
    messages_given += find_storage_refusals(tmp_path / "storage")
    assert find_unmatched(messages(), messages_given) == []
    assert find_unmatched([*messages(), "a new one"], messages_given) == ["a new one"]
    assert find_unmatched(messages()[1:], messages_given)


def test_several_contradictions_are_reported_together() -> None:
    both = {"ingress": {"enabled": True}, "httpRoute": {"enabled": True}}
    assert len(find_refusals(both)) == 3


def test_fewer_partitions_than_at_install_are_refused_on_upgrade(tmp_path: Path) -> None:
    chart = make_installed_chart(tmp_path)
    (message,) = find_refusals({"config": {"partitions": 2}}, chart)
    assert "this release was installed with 4" in message
    for partitions in (4, 5, 8):
        assert find_replicas(chart, partitions) == partitions


def test_partition_that_leaves_keeps_its_flusher(tmp_path: Path) -> None:
    recorded = '(dict "busyapi/base" "4" "busyapi/flushers" "8")'
    answer = f'(dict "metadata" (dict "annotations" {recorded}))'
    chart = with_lookup(tmp_path, "StatefulSet", answer)
    assert find_replicas(chart, 4) == 8
    assert find_replicas(chart, 16) == 16
    documents = render({"config": {"partitions": 5}}, chart=chart)
    flushers = find_object(documents, "StatefulSet", "busyapi-flusher")
    annotations = flushers["metadata"]["annotations"]
    assert annotations == {"busyapi/base": "4", "busyapi/flushers": "8"}
    assert find_object(documents, "ConfigMap", "busyapi")["data"]["BUSYAPI_PARTITIONS"] == "5"
    (container,) = flushers["spec"]["template"]["spec"]["containers"]
    assert {"name": "BUSYAPI_PARTITIONS", "value": "8"} in container["env"]
    (message,) = find_refusals({"config": {"partitions": 3}}, chart)
    assert "this release was installed with 4" in message


@pytest.mark.parametrize(("replicas", "base"), [("4", "4"), ("0", "8")])
def test_flushers_of_an_older_chart_tell_the_number_at_install(
    tmp_path: Path, replicas: str, base: str
) -> None:
    chart = with_lookup(tmp_path, "ConfigMap", '(dict "data" (dict "BUSYAPI_PARTITIONS" "8"))')
    chart = with_lookup(
        tmp_path / "both",
        "StatefulSet",
        f'(dict "spec" (dict "replicas" {replicas}))',
        chart=chart,
    )
    documents = render({"config": {"partitions": 8}}, chart=chart)
    flushers = find_object(documents, "StatefulSet", "busyapi-flusher")
    assert flushers["metadata"]["annotations"] == {"busyapi/base": base, "busyapi/flushers": "8"}


def test_without_lookup_a_value_says_how_many_flushers_there_are() -> None:
    documents = render({"config": {"partitions": 4}, "flusher": {"replicas": 8}})
    assert find_object(documents, "StatefulSet", "busyapi-flusher")["spec"]["replicas"] == 8


def find_replicas(chart: Path, partitions: int) -> int:
    documents = render({"config": {"partitions": partitions}}, chart=chart)
    replicas: int = find_object(documents, "StatefulSet", "busyapi-flusher")["spec"]["replicas"]
    return replicas


def test_passwords_survive_an_upgrade(tmp_path: Path) -> None:
    entries = " ".join(
        f'"{key}" "{b64encode(p.encode()).decode()}"' for key, p in PASSWORDS.items()
    )
    chart = with_lookup(tmp_path, "Secret", f'(dict "data" (dict {entries}))')
    data = find_object(render(chart=chart, upgrade=True), "Secret", "busyapi-valkey")["data"]
    assert {key: b64decode(data[key]).decode() for key in PASSWORDS} == PASSWORDS
