"""Build and load the images whose sources have changed since the last load."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

from e2e.target import ROOT, Target

STAMP = ROOT / ".venv" / "e2e-images.json"
"""A file with the image and the digest of its sources that each cluster has, by cluster id."""
SOURCES = ("service/Dockerfile", "service/busyapi", "pyproject.toml")
LOCK = "requirements.lock"
BASE = "localhost/python:3.13-slim-trixie"
TIMEOUT_SECONDS = 900
EXPORTER = f"""\
FROM {BASE}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus-redis-exporter
USER 59000:59000
ENTRYPOINT ["prometheus-redis-exporter"]
"""


def digest_sources() -> str:
    """Return a digest of the image's sources."""
    digest = hashlib.sha256()
    for name in (*SOURCES, LOCK):
        path = ROOT / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def load_busyapi(target: Target, cluster_id: str, tag: str) -> bool:
    """Build and load the service's image if its sources have changed; return whether it did."""
    if not target.load_command:
        return False
    known: dict[str, str] = json.loads(STAMP.read_text()) if STAMP.exists() else {}
    stamp = f"{tag} {digest_sources()}"
    if known.get(cluster_id) == stamp:
        return False
    build(target, tag, ROOT)
    load_image(target.load_command, tag)
    STAMP.write_text(json.dumps({**known, cluster_id: stamp}))
    return True


def load_release(target: Target, chart: Path, tag: str) -> bool:
    """Build and load the image of an earlier release, from the commit that packed its chart.

    Return False if this clone does not have that commit.
    """
    git = ["git", "-C", str(ROOT)]
    log = [*git, "log", "-1", "--format=%H", "--", str(chart)]
    commit = subprocess.run(log, capture_output=True, text=True, check=False).stdout.strip()
    if not (target.load_command and commit):
        return False
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [*git, "archive", "-o", f"{folder}/tree.tar", commit], check=True, timeout=60
        )
        subprocess.run(["tar", "-xf", f"{folder}/tree.tar", "-C", folder], check=True, timeout=60)
        # In a shallow clone the first commit has every file, of any release.
        project = tomllib.loads((Path(folder) / "pyproject.toml").read_text())["project"]
        if project["version"] != tag.rpartition(":")[2]:
            return False
        build(target, tag, Path(folder))
    load_image(target.load_command, tag)
    return True


def load_image(command: tuple[str, ...], tag: str) -> None:
    """Load an image into the cluster."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "image.tar"
        save(tag, archive)
        subprocess.run([*command, archive], check=True, timeout=TIMEOUT_SECONDS)


def build(target: Target, tag: str, root: Path) -> None:
    """Run `make image` of a source tree."""
    command = ["make", "--no-print-directory", "-C", str(root), "image", f"IMAGE={tag}"]
    if target.program:
        target.cluster("base")
        command.append(f"BASE={BASE}")
    subprocess.run(command, check=True, timeout=TIMEOUT_SECONDS, env=_environment())


def save(tag: str, archive: Path) -> None:
    """Write the image into an archive, with the tool that `make image` uses."""
    if _has_docker():
        command = ["docker", "save", "-o", str(archive), tag]
    elif shutil.which("podman"):
        command = ["podman", "save", "-o", str(archive), tag]
    else:
        command = ["buildah", "push", "-q", tag, f"docker-archive:{archive}:{tag}"]
    subprocess.run(command, check=True, timeout=TIMEOUT_SECONDS, env=_environment())


def _has_docker() -> bool:
    """Return whether there is a docker with its daemon."""
    if not shutil.which("docker"):
        return False
    return not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode


def _environment() -> dict[str, str]:
    """Return the variables that buildah needs as root in a container, and to reuse layers."""
    settings = {
        "STORAGE_DRIVER": "overlay",
        "BUILDAH_ISOLATION": "chroot",
        "BUILDAH_LAYERS": "true",
    }
    return {**settings, **os.environ}


def build_exporter(target: Target, tag: str, *, present: bool) -> None:
    """Build the image of Valkey's exporter, from a package of Debian, where it cannot be pulled."""
    if not target.program or present:
        return
    target.cluster("base")
    with tempfile.TemporaryDirectory() as folder:
        dockerfile = Path(folder) / "Dockerfile"
        dockerfile.write_text(EXPORTER)
        target.cluster("build", folder, "-f", dockerfile, "-t", tag)


def build_valkey(target: Target, tag: str, present: bool) -> None:  # noqa: FBT001
    """Build the bundled Valkey's image where it cannot be pulled."""
    if target.program and not present:
        target.cluster("valkey", "-t", tag)
