"""Values of released charts render in the current one, and upgrade notes name what rolls."""

import re
import tarfile
from itertools import pairwise
from pathlib import Path

import helm_python
import pytest
import yaml

from testkit.chart.immutable_fields import conflicts
from testkit.chart.lookups import with_lookup
from testkit.chart.refused_values import EXPOSED
from testkit.chart.rendering import (
    CHART,
    MODES,
    OPEN,
    ROOT,
    Json,
    load_chart,
    mode_name,
    render,
    render_notes,
    values_of,
)
from testkit.chart.umbrella import copy_chart_with_defaults
from tools.chart_release import find_archives

UPGRADES: list[Json] = yaml.safe_load((CHART / "files" / "upgrades.yaml").read_text())
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
ROLES = {"Deployment/busyapi": "API", "flusher": "flusher", "valkey": "Valkey"}


def default_values(archive: Path) -> str:
    """Return values.yaml of a released chart."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("busyapi/values.yaml")
        assert member
        return member.read().decode()


def known_values(values: Json, defaults: Json) -> Json:
    """Return the values that a release has too; what its defaults leave open stays whole."""
    return {
        name: known_values(value, defaults[name])
        if isinstance(value, dict) and isinstance(defaults[name], dict) and defaults[name]
        else value
        for name, value in values.items()
        if name in defaults
    }


def released(values: Json, archive: Path) -> list[Json] | None:
    """Return the objects of the released chart, or nothing if it does not know the values."""
    try:
        return render(values, chart=archive)
    except helm_python.HelmError:
        return None


def say_that_it_is_open(values: Json) -> Json:
    """Return the values of an older release with what this chart needs for an open API."""
    return values | {"auth": (values.get("auth") or {}) | OPEN["auth"]}


@pytest.mark.parametrize("archive", find_archives(), ids=lambda path: path.stem)
def test_values_of_a_release_render_in_this_chart(archive: Path, tmp_path: Path) -> None:
    defaults = default_values(archive)
    reused = copy_chart_with_defaults(tmp_path, defaults)
    tried = set()
    for mode in MODES:
        values = known_values(values_of(mode), yaml.safe_load(defaults))
        old = released(values, archive)
        if old is None:
            continue
        tried.add(mode_name(mode))
        values = say_that_it_is_open(values)
        # helm upgrade --reuse-values
        assert conflicts(old, render(values, chart=reused, upgrade=True)) == []
        # helm get values --all > values.yaml; helm upgrade -f values.yaml
        complete = say_that_it_is_open(load_chart(archive).merge_values(values))
        assert conflicts(old, render(complete, upgrade=True)) == []
    assert tried >= {"default", "external-redis-standalone", "keda", "everything"} - (
        {"everything"} if "0.1.0" in archive.name else set()
    )


@pytest.mark.parametrize("exposed", EXPOSED.values(), ids=EXPOSED)
def test_exposed_release_without_credentials_is_refused_until_it_is_said_to_be_open(
    exposed: Json,
) -> None:
    archive = find_archives()[-1]
    assert released(exposed, archive)
    complete = load_chart(archive).merge_values(exposed)
    with pytest.raises(helm_python.HelmError, match=r"set auth\.allowAnonymousWrites=true"):
        render(complete, upgrade=True)
    assert render(say_that_it_is_open(complete), upgrade=True)


def charts() -> list[tuple[str, Path]]:
    """Return the version and path of each released chart, and of the current one."""
    paths = {load_chart(path).version: path for path in [*find_archives(), CHART]}
    return [*paths.items()]


def templates(chart: Path) -> dict[str, Json]:
    """Return the pod template of each workload, without values that every render generates."""
    return {
        f"{document['kind']}/{document['metadata']['name']}": document["spec"]["template"]
        for document in render(chart=chart)
        if document["kind"] in {"Deployment", "StatefulSet"}
    }


def role(workload: str) -> str:
    return ROLES.get(workload) or ROLES[workload.rpartition("-")[2]]


def test_notes_of_each_version_name_the_pods_that_it_restarts() -> None:
    for (_, old), (version, new) in pairwise(charts()):
        (entry,) = (entry for entry in UPGRADES if entry["version"] == version)
        before, after = templates(old), templates(new)
        assert {role(name) for name in after if before[name] != after[name]} == {*entry["restarts"]}


def test_changelog_has_the_upgrade_notes_of_each_version() -> None:
    for entry in UPGRADES:
        section = re.search(
            rf"^## [^\n]*{re.escape(entry['version'])}.*?^### Upgrade\n(.*?)^##",
            CHANGELOG,
            re.MULTILINE | re.DOTALL,
        )
        assert section, entry["version"]
        text = " ".join(section[1].split())
        assert f"Restarts these pods: {', '.join(entry['restarts'])}." in text
        for action in entry["actions"]:
            assert " ".join(action.split()) in text


INSTALLED = '(dict "metadata" (dict "labels" (dict "helm.sh/chart" "busyapi-%s")))'


@pytest.mark.parametrize(
    ("installed", "versions"),
    [("0.1.0", ["0.2.0", "0.3.0"]), ("0.2.0", ["0.3.0"]), ("0.3.0", []), ("9.0.0", [])],
)
def test_notes_tell_what_the_upgrade_of_an_installed_version_needs(
    installed: str, versions: list[str], tmp_path: Path
) -> None:
    chart = with_lookup(tmp_path, "Deployment", INSTALLED % installed)
    text = " ".join(render_notes(chart=chart, upgrade=True).split())
    for entry in UPGRADES:
        is_due = entry["version"] in versions
        restarts = f"{entry['version']} restarts these pods: {', '.join(entry['restarts'])}."
        assert (restarts in text) is is_due
        for action in entry["actions"]:
            assert (" ".join(action.split()) in text) is is_due
    assert (f"Upgrade from {installed}" in text) is bool(versions)


def test_notes_of_an_installation_have_no_upgrade() -> None:
    assert "Upgrade from" not in render_notes()
