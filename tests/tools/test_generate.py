"""Generated files are up to date, and `--check` finds each stale one."""

import shutil
from pathlib import Path

import pytest

from tools.generate import chart_config
from tools.generate.__main__ import MODULES, ROOT, main

SOURCES = ("charts", "docs", "k8s", "bench", "perf", "service/busyapi")
"""The folders that the generators read or write."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the sources that a test may change."""
    for name in SOURCES:
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("name", MODULES)
def test_generated_files_are_fresh(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", name]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("settings", "docs/reference/settings.md"),
        ("k8s", "k8s/base/api.yaml"),
        ("k8s", "k8s/base/users.acl"),
        ("k8s", "k8s/base/config.env"),
        ("k8s", "k8s/observability/rules.yaml"),
        ("dashboards", "charts/busyapi/dashboards/overview.json"),
        ("docs", "docs/reference/metrics.md"),
        ("docs", "docs/reference/logs.md"),
    ],
)
def test_a_stale_file_is_found_and_rewritten(
    name: str, file: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = (copy / file).read_text()
    (copy / file).write_text(fresh.replace("a", "b", 1))
    options = ["--root", str(copy), name]
    assert main(["--check", *options]) == 1
    assert f"{file} is stale: run `make generate ARGS={name}`" in capsys.readouterr().err
    assert (copy / file).read_text() != fresh
    assert main(options) == 0
    assert (copy / file).read_text() == fresh
    assert main(["--check", *options]) == 0


def test_a_stale_table_of_sizing_is_found(copy: Path) -> None:
    page = copy / "docs/reference/sizing.md"
    replace_in(page, "| 100 million | by the thousand |", "| 100 million | else |")
    assert main(["--check", "--root", str(copy), "docs"]) == 1


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("templates/configmap.yaml", ".partitions | int64", ".partitions"),
        ("templates/configmap.yaml", "  BUSYAPI_LOG_LEVEL: {{ .logLevel | quote }}\n", ""),
        ("values.schema.json", '"maximum": 300\n', '"maximum": 301\n'),
    ],
)
def test_a_stale_config_of_the_chart_is_found_and_rewritten(
    copy: Path, file: str, old: str, new: str
) -> None:
    path = copy / "charts/busyapi" / file
    fresh = path.read_text()
    replace_in(path, old, new)
    options = ["--root", str(copy), "settings"]
    assert main(["--check", *options]) == 1
    assert main(options) == 0
    assert path.read_text() == fresh


def test_a_config_map_without_a_place_for_the_rows_is_refused(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_in(copy / chart_config.CONFIG_MAP, chart_config.END, "")
    assert main(["--root", str(copy), "settings"]) == 1
    assert "configmap.yaml has no" in capsys.readouterr().err


def test_text_setting_without_a_pattern_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(chart_config.PATTERNS, "corsOrigins")
    with pytest.raises(ValueError, match=r"config\.corsOrigins: add it to PATTERNS"):
        chart_config.render_schema((ROOT / chart_config.SCHEMA).read_text(), "a: {}")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("replicaCount: 2", "replicaCount: 3", "is stale"),
        ("# -- Minimum number of pods.", "# -- The minimum number of pods.", "is stale"),
        ("# -- Number of API pods", "# Number of API pods", "replicaCount has no comment"),
    ],
)
def test_a_value_that_the_readme_does_not_describe_is_found(
    copy: Path, old: str, new: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_in(copy / "charts/busyapi/values.yaml", old, new)
    assert main(["--check", "--root", str(copy), "values"]) == 1
    assert message in capsys.readouterr().err


def test_a_check_writes_nothing_and_a_run_rewrites_the_table(copy: Path) -> None:
    readme = copy / "charts/busyapi/README.md"
    fresh = readme.read_text()
    replace_in(readme, "| `replicaCount` |", "| `replicas` |")
    stale = readme.read_text()
    options = ["--root", str(copy), "values"]
    assert main(["--check", *options]) == 1
    assert readme.read_text() == stale
    assert main(options) == 0
    assert readme.read_text() == fresh


def test_a_dashboard_without_code_is_found_and_removed(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = copy / "charts/busyapi/dashboards/own.json"
    own.write_text("{}")
    options = ["--root", str(copy), "dashboards"]
    assert main(["--check", *options]) == 1
    assert "own.json is stale" in capsys.readouterr().err
    assert main(options) == 0
    assert not own.exists()


def test_a_missing_file_is_written(copy: Path) -> None:
    lost = copy / "charts/busyapi/dashboards/overview.json"
    fresh = lost.read_text()
    lost.unlink()
    assert main(["--check", "--root", str(copy), "dashboards"]) == 1
    assert main(["--root", str(copy), "dashboards"]) == 0
    assert lost.read_text() == fresh


def test_an_unknown_name_is_refused_with_a_list_of_the_known_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["valeus"])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert "unknown: valeus" in error
    assert all(name in error for name in MODULES)
