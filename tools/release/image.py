"""Build the container image into an OCI archive, and read its files."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tools.release.commands import run
from tools.release.source import Source

WHITEOUT = ".wh."
"""Prefix of a file in a layer that removes another file of the layers below."""
OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True)
class Image:
    """An image in an OCI archive."""

    archive: Path
    digest: str
    """The manifest's digest, which a registry, a signature and a Deployment refer to."""
    config: dict[str, Any]
    layers: list[str]
    """Digests, lowest first."""


def build_image(source: Source, output: Path, base: str) -> Path:
    """Build the image with `make image` and save it as an OCI archive."""
    tag = f"busyapi:{source.version}"
    arguments = (f"IMAGE={tag}", *([f"BASE={base}"] if base else []))
    run("make", "--no-print-directory", "-C", source.tree, "image", *arguments)
    archive = output / f"busyapi-{source.version}-image.tar"
    run(*_save_command(tag, archive))
    return archive


def _save_command(tag: str, archive: Path) -> tuple[str, ...]:
    """Return the command for the tool that `make image` uses."""
    docker = shutil.which("docker")
    if docker and not subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        return ("skopeo", "copy", "--quiet", f"docker-daemon:{tag}", f"oci-archive:{archive}:{tag}")
    if shutil.which("podman"):
        return ("podman", "save", "--quiet", "--format", "oci-archive", "-o", str(archive), tag)
    return ("buildah", "push", "--quiet", tag, f"oci-archive:{archive}:{tag}")


def open_image(archive: Path) -> Image:
    """Read the manifest and the configuration of the only image in an OCI archive."""
    with tarfile.open(archive) as packed:
        (entry,) = _read_json(packed, "index.json")["manifests"]
        manifest = _read_json(packed, _blob(entry["digest"]))
        config = _read_json(packed, _blob(manifest["config"]["digest"]))
    layers = [layer["digest"] for layer in manifest["layers"]]
    return Image(archive, entry["digest"], config, layers)


def read_files(image: Image, *patterns: str) -> dict[str, bytes]:
    """Return the files whose paths match a pattern, as a container sees them."""
    contents: dict[str, bytes] = {}
    with tarfile.open(image.archive) as packed:
        for digest in image.layers:
            blob = packed.extractfile(_blob(digest))
            assert blob, digest  # noqa: S101 - a blob is a file
            for path, content in _read_layer(blob, patterns):
                if content is None:
                    _remove(contents, path)
                else:
                    contents[str(path)] = content
    return contents


def _read_layer(
    blob: IO[bytes], patterns: tuple[str, ...]
) -> Iterator[tuple[PurePosixPath, bytes | None]]:
    """Yield the matching files of a layer; without content, a path that it removes."""
    with tarfile.open(fileobj=blob, mode="r|*") as layer:
        for member in layer:
            path = PurePosixPath("/", member.name)
            if path.name == OPAQUE:
                yield path.parent, None
            elif path.name.startswith(WHITEOUT):
                yield path.with_name(path.name.removeprefix(WHITEOUT)), None
            elif any(path.match(pattern) for pattern in patterns):
                file = layer.extractfile(member)
                if file:
                    yield path, file.read()


def _remove(contents: dict[str, bytes], path: PurePosixPath) -> None:
    """Forget a file, or all files of a folder."""
    for name in [name for name in contents if PurePosixPath(name).is_relative_to(path)]:
        del contents[name]


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _read_json(packed: tarfile.TarFile, name: str) -> dict[str, Any]:
    file = packed.extractfile(name)
    assert file, name  # noqa: S101 - the layout of an OCI archive
    content: dict[str, Any] = json.load(file)
    return content
