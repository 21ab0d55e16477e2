"""A complete release is built from a tag, pushed, pulled and run."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from testkit.releases import LocalRegistry, Repository
from tests.release.conftest import Keys
from tools.release.commands import run
from tools.release.errors import ReleaseError
from tools.release.image import open_image

pytestmark = [pytest.mark.release, pytest.mark.timeout(1200)]

BASE = os.environ.get("BASE", "")
"""The image to build from if the pinned one cannot be pulled."""
FILES = {
    "SHA256SUMS",
    "SHA256SUMS.sig",
    "busyapi-9.9.0-image.cdx.json",
    "busyapi-9.9.0-image.tar",
    "busyapi-9.9.0-py3-none-any.whl",
    "busyapi-9.9.0.cdx.json",
    "busyapi-9.9.0.tar.gz",
    "busyapi-9.9.0.tgz",
}


@pytest.fixture(autouse=True)
def builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let buildah work as root in a container, and check that the base image is available."""
    for name, value in (("STORAGE_DRIVER", "overlay"), ("BUILDAH_ISOLATION", "chroot")):
        monkeypatch.setenv(name, os.environ.get(name, value))
    if not BASE and not os.environ.get("CI"):
        pinned = run("sed", "-n", "s/^ARG BASE=//p", "service/Dockerfile")
        name, digest = pinned.split("@")
        try:
            run("skopeo", "inspect", "--raw", f"docker://{name.rpartition(':')[0]}@{digest}")
        except ReleaseError:
            pytest.skip("the base image cannot be pulled: set BASE to a local one")


@pytest.fixture
def dist(repository: Repository, keys: Keys) -> Iterator[Path]:
    """Yield the folder with the files of a release."""
    repository.git("remote", "remove", "origin")
    base = ("--base", BASE) if BASE else ()
    built = repository.release("build", *base, key=keys.private_file)
    assert built.returncode == 0, built.stderr
    yield repository.root / "dist"
    for tool in ("docker", "podman", "buildah"):
        if shutil.which(tool):
            remove = [tool, "rmi", "--force", "busyapi:9.9.0"]
            subprocess.run(remove, check=False, capture_output=True, timeout=60)


def test_a_release_is_built_pushed_pulled_and_run(
    dist: Path,
    repository: Repository,
    local_registry: LocalRegistry,
    keys: Keys,
    tmp_path: Path,
) -> None:
    assert {path.name for path in dist.iterdir()} == FILES
    listed = {
        component["purl"] for component in read_components(dist / "busyapi-9.9.0-image.cdx.json")
    }
    assert "pkg:pypi/busyapi@9.9.0" in listed
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in listed)
    remote = (local_registry.prefix, "--plain-http")
    pushed = repository.release("push", *remote, key=keys.private_file)
    assert pushed.returncode == 0, pushed.stderr
    assert open_image(dist / "busyapi-9.9.0-image.tar").digest in pushed.stdout
    folder = tmp_path / "pulled"
    pulled = repository.release("pull", *remote, "9.9.0", "--dist", str(folder))
    assert pulled.returncode == 0, pulled.stderr
    assert (folder / "busyapi-9.9.0.tgz").read_bytes() == (dist / "busyapi-9.9.0.tgz").read_bytes()
    assert run_image(folder / "busyapi-9.9.0-image.tar", "--version") == "busyapi 9.9.0"

    with (dist / "busyapi-9.9.0-image.tar").open("r+b") as archive:
        archive.seek(-20_000, os.SEEK_END)
        archive.write(b"changed")
    refused = repository.release("push", *remote, key=keys.private_file)
    assert refused.returncode == 1
    assert "busyapi-9.9.0-image.tar is not the file that was signed" in refused.stderr


def read_components(path: Path) -> list[dict[str, Any]]:
    """Return the components of a document that CycloneDX's own schema accepts."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text()) is None
    components: list[dict[str, Any]] = json.loads(path.read_text())["components"]
    return components


def run_image(archive: Path, *arguments: str) -> str:
    """Run busyapi in a container of an OCI archive and return what it printed."""
    container = run("buildah", "from", "--pull-never", f"oci-archive:{archive}")
    try:
        return run("buildah", "run", container, "--", "busyapi", *arguments)
    finally:
        subprocess.run(["buildah", "rm", container], check=True, capture_output=True, timeout=60)
