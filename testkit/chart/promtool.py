"""Run promtool on the rules of the chart and on the cases in tests/chart/rules.

Debian's promtool (Prometheus 2) is required. If the files of the test cluster are next to the
repository, its promtool (Prometheus 3) runs too, because it counts windows and escapes names
differently.
"""

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import yaml
import zstandard

from testkit.chart.rendering import ROOT, Json, of_kind, render

CASES = sorted((ROOT / "tests" / "chart" / "rules").glob("*.yaml"))
SOURCE = ROOT / "charts" / "busyapi" / "files" / "rules.yaml"
PLAIN_RULES = ROOT / "k8s" / "observability" / "rules.yaml"
CLUSTER_PROMTOOL = ROOT.parent / "shared" / "cluster" / "bin" / "promtool.zst"


PROGRAMS = ["debian", *(["cluster"] if CLUSTER_PROMTOOL.exists() else [])]


def program(name: str) -> str:
    """Return the path of a promtool. Debian's must exist."""
    path = str(unpack_cluster_promtool()) if name == "cluster" else shutil.which("promtool")
    assert path, "promtool is missing: apt-get install prometheus"
    return path


@cache
def unpack_cluster_promtool() -> Path:
    """Unpack the promtool of the cluster, once per run."""
    path = Path(tempfile.mkdtemp()) / "promtool"
    with CLUSTER_PROMTOOL.open("rb") as packed, path.open("wb") as file:
        zstandard.ZstdDecompressor().copy_stream(packed, file)
    path.chmod(0o755)
    return path


def promtool(name: str, *arguments: str | Path) -> str:
    """Run promtool, and return its output if it fails, otherwise nothing."""
    process = subprocess.run(
        [program(name), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    return f"{process.stdout}{process.stderr}" if process.returncode else ""


def list_groups(values: Json | None = None, release: str = "busyapi") -> list[Json]:
    """Return the groups of the PrometheusRule with these values, and all alerts by default."""
    every = {"enabled": True, "trafficGone": {"enabled": True}}
    probe = {"enabled": True, "targets": ["https://usages.example.org/openapi.json"]}
    lake = {"enabled": True, "warehouse": "s3://bucket/lake", "catalog": "https://catalog/"}
    metrics = {"prometheusRule": {**every, **(values or {})}, "probe": probe}
    documents = render({"metrics": metrics, "lake": lake}, release=release)
    (rule,) = of_kind(documents, "PrometheusRule")
    rule_groups: list[Json] = rule["spec"]["groups"]
    return rule_groups


def write_groups(rule_groups: list[Json], folder: Path) -> list[Path]:
    """Write a file for each group. A case evaluates only its own group, in a tenth of the time."""
    paths = []
    for group in rule_groups:
        paths.append(folder / f"{group['name']}.yaml")
        paths[-1].write_text(yaml.safe_dump({"groups": [group]}))
    return paths


def list_alerts(rule_groups: list[Json]) -> list[Json]:
    """Return the alerts of these groups."""
    return [rule for group in rule_groups for rule in group["rules"] if "alert" in rule]


def list_cases() -> list[Json]:
    """Return all cases of all files."""
    return [case for path in CASES for case in yaml.safe_load(path.read_text())["tests"]]
