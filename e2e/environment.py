"""The versions and the machine, for the head of the report."""

import os
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from e2e.kube import Kube, format_now
from e2e.release import CHART
from e2e.target import ROOT


def default_image() -> str:
    """Return the image that the chart runs by default."""
    return name_image(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"])


def name_image(version: str) -> str:
    """Return the image of a release's chart."""
    return f"docker.io/library/busyapi:{version}"


def valkey_image() -> str:
    """Return the image of the bundled Valkey."""
    return _name(_read_values()["valkey"]["image"])


def exporter_image() -> str:
    """Return the image of the bundled Valkey's exporter."""
    return _name(_read_values()["valkey"]["metrics"]["image"])


def _read_values() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return values


def _name(image: dict[str, str]) -> str:
    return f"{image['registry']}/{image['repository']}:{image['tag']}"


def collect_facts(kube: Kube) -> dict[str, str]:
    """Return the versions and the machine's size."""
    nodes = [node.metadata.name for node in kube.core.list_node().items]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return {
        "run": format_now(),
        "busyapi": f"{chart['appVersion']}, chart {chart['version']}, commit {_commit()}",
        "Kubernetes": f"{kube.version()}, nodes {', '.join(nodes)}",
        "helm-python-sdk": version("helm-python-sdk"),
        "kubernetes (Python)": version("kubernetes"),
        "Valkey": f"image {valkey_image()}",
        "machine": f"{os.cpu_count()} cores, {_memory():.0f} GiB, shared by nodes and load",
    }


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    return process.stdout.strip() or "unknown"


def _memory() -> float:
    first = Path("/proc/meminfo").read_text().split()[1]
    return int(first) / (1 << 20)
