"""The bills of material list the contents of lock and image in valid CycloneDX."""

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from testkit.releases import Files, OciArchive, Repository
from tools.release.sbom import LOCKED, write_image_sbom, write_lock_sbom
from tools.release.source import Source, export_release

DPKG = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: tzdata
Status: install ok installed
Architecture: all
Version: 1:2026b-0
Description: time zones
 with more than one line
"""
SITE = "opt/busyapi/lib/python3.13/site-packages"
PIP: Files = {f"{SITE}/pip-1.dist-info/METADATA": b"Metadata-Version: 2.4\nName: pip\nVersion: 1\n"}
SANIC: Files = {
    f"{SITE}/sanic-25.dist-info/METADATA": b"Metadata-Version: 2.4\nName: Sanic\nVersion: 25.12\n"
    b"License-Expression: MIT\n\nA body\nName: wrong\n"
}


@pytest.fixture
def source(tagged: Repository, tmp_path: Path) -> Source:
    return export_release(tagged.root, tmp_path)


def read_valid(path: Path) -> dict[str, Any]:
    """Read a document that CycloneDX's own schema accepts."""
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text())
    assert error is None
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def names(document: dict[str, Any]) -> list[str]:
    return [component["name"] for component in document["components"]]


def test_the_lock_gives_every_package_with_its_version(source: Source, tmp_path: Path) -> None:
    document = read_valid(write_lock_sbom(source, tmp_path))
    locked = dict(LOCKED.findall((source.tree / "requirements.lock").read_text()))
    assert {
        component["name"]: component["version"] for component in document["components"]
    } == locked
    assert f"pkg:pypi/sanic@{locked['sanic']}" in document["dependencies"][0]["dependsOn"]
    assert document["metadata"]["component"]["version"] == "9.9.0"


def test_a_document_is_the_same_for_the_same_commit(source: Source, tmp_path: Path) -> None:
    first = write_lock_sbom(source, tmp_path).read_bytes()
    assert write_lock_sbom(source, tmp_path).read_bytes() == first


def image_sbom(
    source: Source, folder: Path, layers: list[Files], environment: tuple[str, ...] = ()
) -> dict[str, Any]:
    image = OciArchive(folder / "image.tar", layers, list(environment))
    document = read_valid(write_image_sbom(source, folder, image.path))
    assert document["metadata"]["component"]["hashes"][0]["content"] in image.digest
    return document


def test_an_image_gives_debian_packages_python_and_python_packages(
    source: Source, tmp_path: Path
) -> None:
    layers: list[Files] = [{"var/lib/dpkg/status": DPKG.encode()}, {**SANIC, "etc/x": b""}]
    document = image_sbom(source, tmp_path, layers, ("PYTHON_VERSION=3.13.9", "PATH=/bin"))
    assert {component["purl"] for component in document["components"]} == {
        "pkg:deb/debian/libc6@2.41-12?arch=amd64",
        "pkg:deb/debian/tzdata@1%3A2026b-0?arch=all",
        "pkg:generic/python@3.13.9",
        "pkg:pypi/sanic@25.12",
    }
    sanic = next(component for component in document["components"] if component["name"] == "sanic")
    assert sanic["licenses"] == [{"expression": "MIT"}]


@pytest.mark.parametrize(
    "whiteout",
    [f"{SITE}/.wh.pip-1.dist-info", f"{SITE}/pip-1.dist-info/.wh.METADATA"],
)
def test_a_package_that_a_later_layer_removes_is_not_listed(
    source: Source, tmp_path: Path, whiteout: str
) -> None:
    assert names(image_sbom(source, tmp_path, [PIP, {whiteout: b""}, SANIC])) == ["sanic"]


def test_packages_in_a_folder_that_a_layer_replaces_are_not_listed(
    source: Source, tmp_path: Path
) -> None:
    layers: list[Files] = [PIP, {f"{SITE}/.wh..wh..opq": b"", **SANIC}]
    assert names(image_sbom(source, tmp_path, layers)) == ["sanic"]
