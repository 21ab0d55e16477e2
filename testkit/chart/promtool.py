"""promtool, the rules of the chart as it reads them, and the cases in rules/ as data.

Debian's is Prometheus 2, and must be there. Where the cluster's files lie beside the repository its
promtool is asked too: Prometheus 3 counts windows and escapes names in another way.
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
PLAIN = ROOT / "k8s" / "observability" / "rules.yaml"
CLUSTERS = ROOT.parent / "shared" / "cluster" / "bin" / "promtool.zst"


PROGRAMS = ["debian", *(["cluster"] if CLUSTERS.exists() else [])]


def program(name: str) -> str:
    """Where it is; Debian's must be."""
    found = str(unpacked()) if name == "cluster" else shutil.which("promtool")
    assert found, "promtool is missing: apt-get install prometheus"
    return found


@cache
def unpacked() -> Path:
    """The cluster's, once in a run."""
    path = Path(tempfile.mkdtemp()) / "promtool"
    with CLUSTERS.open("rb") as packed, path.open("wb") as file:
        zstandard.ZstdDecompressor().copy_stream(packed, file)
    path.chmod(0o755)
    return path


def promtool(name: str, *arguments: str | Path) -> str:
    """What it finds wrong; nothing when all is well."""
    done = subprocess.run(
        [program(name), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    return f"{done.stdout}{done.stderr}" if done.returncode else ""


def groups(values: Json | None = None, release: str = "busyapi") -> list[Json]:
    """The groups of the PrometheusRule that these values make."""
    said = {"metrics": {"prometheusRule": {"enabled": True, **(values or {})}}}
    (rule,) = of_kind(render(said, release=release), "PrometheusRule")
    found: list[Json] = rule["spec"]["groups"]
    return found


def written(of: list[Json], folder: Path) -> list[Path]:
    """A file for each group: a case evaluates its own alone, in a tenth of the time."""
    paths = []
    for each in of:
        paths.append(folder / f"{each['name']}.yaml")
        paths[-1].write_text(yaml.safe_dump({"groups": [each]}))
    return paths


def alerts(of: list[Json]) -> list[Json]:
    """The alerts of these groups."""
    return [rule for group in of for rule in group["rules"] if "alert" in rule]


def cases() -> list[Json]:
    """Every case of every file."""
    return [each for path in CASES for each in yaml.safe_load(path.read_text())["tests"]]
