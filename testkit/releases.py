"""Parts for tests of a release: a repository, an image, a registry."""

import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from testkit.ports import reserve_port
from testkit.waiting import wait_until

AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@example.org")
VERSION_LINE = re.compile(r"^((?:version|appVersion)(?: =|:) \"?)([\d.]+)(\"?)$", re.MULTILINE)
OCI_TYPE = "application/vnd.oci.image.{}"
Files = dict[str, bytes]


def run_command(*command: str | Path) -> str:
    """Run a command that must succeed, and return its output."""
    process = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return process.stdout.strip()


class Repository:
    """A copy of this repository to release from, including uncommitted changes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def git(self, *arguments: str) -> str:
        """Run git and return its output."""
        return run_command("git", "-C", self.root, *AUTHOR, *arguments)

    def write(self, name: str, replace: Callable[[str], str]) -> None:
        """Change the text of a file."""
        path = self.root / name
        path.write_text(replace(path.read_text()))

    def set_version(self, version: str) -> None:
        """Set the version of project, chart and changelog to one that no release has."""
        for name in ("pyproject.toml", "charts/busyapi/Chart.yaml"):
            self.write(name, lambda text: VERSION_LINE.sub(rf"\g<1>{version}\3", text))
        heading = f"## {version} - 2026-12-01\n\n## "
        self.write("CHANGELOG.md", lambda text: text.replace("## ", heading, 1))

    def commit(self) -> None:
        """Commit all changes."""
        self.git("add", "--all")
        self.git("commit", "-q", "-m", "a commit")

    def release(self, *arguments: str, key: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `python -m tools.release` of this copy."""
        return subprocess.run(
            [sys.executable, "-m", "tools.release", *arguments],
            cwd=self.root,
            check=False,
            capture_output=True,
            text=True,
            timeout=900,
            env={**os.environ, "RELEASE_KEY": str(key or "")},
        )


class OciArchive:
    """Write an OCI archive with one image."""

    def __init__(self, path: Path, layers: list[Files], environment: list[str]) -> None:
        with tarfile.open(path, "w") as self._tar:
            config = {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Env": environment},
                "rootfs": {"type": "layers", "diff_ids": [_digest(_pack(f)) for f in layers]},
            }
            manifest: dict[str, Any] = {
                "schemaVersion": 2,
                "mediaType": OCI_TYPE.format("manifest.v1+json"),
                "config": self._add_blob(_encode(config), "config.v1+json"),
                "layers": [
                    self._add_blob(gzip.compress(_pack(files)), "layer.v1.tar+gzip")
                    for files in layers
                ],
            }
            entry = self._add_blob(_encode(manifest), "manifest.v1+json")
            self._add("index.json", _encode({"schemaVersion": 2, "manifests": [entry]}))
            self._add("oci-layout", _encode({"imageLayoutVersion": "1.0.0"}))
        self.path = path
        self.digest: str = entry["digest"]
        self.layers: list[str] = [layer["digest"] for layer in manifest["layers"]]

    def _add_blob(self, content: bytes, kind: str) -> dict[str, Any]:
        digest = _digest(content)
        self._add(f"blobs/{digest.replace(':', '/')}", content)
        return {"mediaType": OCI_TYPE.format(kind), "size": len(content), "digest": digest}

    def _add(self, name: str, content: bytes) -> None:
        _add(self._tar, name, content)


class LocalRegistry:
    """Debian's docker-registry on this machine."""

    def __init__(self, folder: Path) -> None:
        self.blobs = folder / "data/docker/registry/v2/blobs/sha256"
        self.address = f"127.0.0.1:{reserve_port()}"
        self.prefix = f"{self.address}/team"
        self.config = folder / "config.yml"
        self.config.write_text(
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
            f"http: {{addr: '{self.address}'}}\nlog: {{level: error}}\n"
        )

    def read_blob(self, digest: str) -> bytes:
        """Return a blob or a manifest from the registry's disk."""
        return self._path(digest).read_bytes()

    def change_byte(self, digest: str) -> None:
        """Change the last byte of a blob on the registry's disk."""
        content = self.read_blob(digest)
        self._path(digest).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    def copy_tag(self, repository: str, tag: str, copy: str) -> None:
        """Add another tag to a manifest."""
        name = f"docker://{self.prefix}/{repository}"
        tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
        run_command("skopeo", "copy", *tls, f"{name}:{tag}", f"{name}:{copy}")

    def _path(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self.blobs / name[:2] / name / "data"


@contextmanager
def run_registry(folder: Path) -> Iterator[LocalRegistry]:
    """Run an empty registry."""
    folder.mkdir()
    local = LocalRegistry(folder)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", local.config], stdout=log, stderr=log
        )
    try:
        wait_until(lambda: _is_answering(local.address), "the registry", seconds=30)
        yield local
    finally:
        process.terminate()
        process.wait(timeout=10)


def _is_answering(address: str) -> bool:
    command = ["curl", "-sf", f"http://{address}/v2/"]
    return not subprocess.run(command, check=False, capture_output=True).returncode


def _pack(files: Files) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as layer:
        for name, content in files.items():
            _add(layer, name, content)
    return packed.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _encode(content: Any) -> bytes:
    return json.dumps(content).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"
