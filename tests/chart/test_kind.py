"""Tests of k8s/kind/up with programs that only record their arguments, without Docker."""

import shutil
import subprocess
from pathlib import Path

import pytest

from testkit.chart.rendering import ROOT

UP = ROOT / "k8s" / "kind" / "up"
RECORD = 'echo "$(basename "$0") $*" >>"$LOG"; '


def kind_up(folder: Path, programs: tuple[str, ...]) -> tuple[int, str]:
    """Run k8s/kind/up with these programs only, and return its exit code and their arguments."""
    path = folder / "bin"
    path.mkdir(parents=True)
    for name in ("dirname", "basename", "grep", "cat", "tr", "head", "sed", "cut", "sha256sum"):
        (path / name).symlink_to(shutil.which(name) or name)
    for name in programs:
        # There is no Secret yet, and piped input is read.
        script = f'{RECORD}case "$*" in *"get secret"*) exit 1;; *"-f -"*) cat >/dev/null;; esac'
        (path / name).write_text(f"#!/bin/sh\n{script}\n")
        (path / name).chmod(0o755)
    log = folder / "log"
    log.touch()
    process = subprocess.run(
        ["/bin/sh", str(UP)],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": str(path), "LOG": str(log)},
    )
    return process.returncode, log.read_text() + process.stderr


def test_kind_up_creates_builds_loads_and_applies_in_this_order(tmp_path: Path) -> None:
    code, log = kind_up(tmp_path, ("docker", "kind", "kubectl"))
    assert code == 0, log
    steps = [
        "kind create cluster --config k8s/kind/cluster.yaml",
        "docker build -f service/Dockerfile -t busyapi:dev .",
        "kind load docker-image --name busyapi busyapi:dev",
        "apply -f k8s/overlays/local/namespace.yaml",
        "create -f -",
        "apply -k k8s/overlays/local",
        "rollout status deployment/busyapi",
    ]
    places = [log.find(step) for step in steps]
    assert -1 not in places, log
    assert places == sorted(places)
    assert "--context kind-busyapi" in log


@pytest.mark.parametrize("missing", ["docker", "kind", "kubectl"])
def test_kind_up_names_the_missing_program(missing: str, tmp_path: Path) -> None:
    programs = tuple(program for program in ("docker", "kind", "kubectl") if program != missing)
    code, log = kind_up(tmp_path, programs)
    assert code == 1
    assert f"{missing} is missing" in log
