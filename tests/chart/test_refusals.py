"""Every contradiction of values is refused, alone, with the way out of it."""

import re
import shutil
from base64 import b64decode, b64encode
from pathlib import Path

import helm_python
import pytest

from testkit.chart.refused_values import REFUSALS, messages
from testkit.chart.rendering import CHART, Json, one, render

PASSWORDS = {"api-password": "an-old-one", "flusher-password": "another-old-one"}


def refusal(values: Json, chart: Path = CHART) -> list[str]:
    """The messages that values are refused with."""
    with pytest.raises(helm_python.HelmError) as refused:
        render(values, chart=chart)
    text = str(refused.value)
    gathered = re.findall(r"^  busyapi: (.*)", text, re.MULTILINE)
    return gathered or [re.sub(r"^execution error at \(.*?\): ", "", text.splitlines()[-1])]


def with_lookup(folder: Path, kind: str, answer: str) -> Path:
    """A copy of the chart that finds this in the cluster, as a template's expression."""
    chart = Path(shutil.copytree(CHART, folder / "busyapi"))
    call = re.compile(rf'lookup "v1" "{kind}" \([^)]*\) (\([^)]*\)|\$\w+)')
    changed = 0
    for template in (chart / "templates").rglob("*.*"):
        text, count = call.subn(answer, template.read_text())
        template.write_text(text)
        changed += count
    assert changed
    return chart


def installed_with_four(folder: Path) -> Path:
    """The chart where the release has four partitions already."""
    return with_lookup(folder, "ConfigMap", '(dict "data" (dict "BUSYAPI_PARTITIONS" "4"))')


@pytest.mark.parametrize(("start", "values"), REFUSALS, ids=[start for start, _ in REFUSALS])
def test_a_contradiction_is_refused_alone(start: str, values: Json) -> None:
    (message,) = refusal(values)
    assert start in message


def unmatched(patterns: list[str], given: list[str]) -> list[str]:
    """Messages that nobody was given, and given ones that no template has."""
    return [each for each in patterns if not any(re.fullmatch(each, text) for text in given)] + [
        text for text in given if not any(re.fullmatch(each, text) for each in patterns)
    ]


def test_every_message_in_the_templates_is_tested_and_the_other_way_round(tmp_path: Path) -> None:
    given = [each for _, values in REFUSALS for each in refusal(values)]
    given += refusal({"config": {"partitions": 2}}, installed_with_four(tmp_path))
    assert unmatched(messages(), given) == []
    assert unmatched([*messages(), "a new one"], given) == ["a new one"]
    assert unmatched(messages()[1:], given)


def test_several_contradictions_are_told_at_once() -> None:
    both = {"ingress": {"enabled": True}, "httpRoute": {"enabled": True}}
    assert len(refusal(both)) == 2


def test_another_number_of_partitions_is_refused_on_upgrade(tmp_path: Path) -> None:
    chart = installed_with_four(tmp_path)
    (message,) = refusal({"config": {"partitions": 2}}, chart)
    assert "this release was installed with 4" in message
    assert render({"config": {"partitions": 4}}, chart=chart)


def test_passwords_survive_an_upgrade(tmp_path: Path) -> None:
    found = " ".join(f'"{key}" "{b64encode(p.encode()).decode()}"' for key, p in PASSWORDS.items())
    chart = with_lookup(tmp_path, "Secret", f'(dict "data" (dict {found}))')
    data = one(render(chart=chart, upgrade=True), "Secret", "busyapi-valkey")["data"]
    assert {key: b64decode(data[key]).decode() for key in PASSWORDS} == PASSWORDS
