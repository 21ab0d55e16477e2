"""Write the contents of the lock and of the image as CycloneDX 1.6 in JSON."""

import json
import re
import uuid
from datetime import UTC, datetime
from email.parser import Parser
from hashlib import sha256
from pathlib import Path
from typing import Any

from tools.release.image import open_image, read_files
from tools.release.source import Source

Component = dict[str, Any]

LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
NAMESPACE = uuid.UUID("6f1d6f0c-7a51-4b39-9c1d-0d3c9d1f7c53")
"""For serial numbers. They are derived from the content, so that two builds have the same."""


def write_lock_sbom(source: Source, output: Path) -> Path:
    """List the packages of requirements.lock, which the image and `pip install` use."""
    packages = LOCKED.findall((source.tree / "requirements.lock").read_text())
    components = [_python_package(name, version) for name, version in packages]
    subject = _python_package("busyapi", source.version) | {"type": "application"}
    return _write(source, output / f"busyapi-{source.version}.cdx.json", subject, components)


def write_image_sbom(source: Source, output: Path, archive: Path) -> Path:
    """List the Debian packages, Python and the Python packages that the image contains."""
    image = open_image(archive)
    files = read_files(image, "/var/lib/dpkg/status", "*.dist-info/METADATA")
    components = []
    for path, content in sorted(files.items()):
        text = content.decode()
        components += _debian_packages(text) if path.endswith("/status") else [_installed(text)]
    components += _built_python(image.config)
    subject = {
        "type": "container",
        "name": "busyapi",
        "version": source.version,
        "purl": f"pkg:oci/busyapi@{image.digest.replace(':', '%3A')}",
        "hashes": [{"alg": "SHA-256", "content": image.digest.removeprefix("sha256:")}],
    }
    return _write(source, output / f"busyapi-{source.version}-image.cdx.json", subject, components)


def _debian_packages(status: str) -> list[Component]:
    """Return the installed packages of dpkg's status file."""
    fields = [Parser().parsestr(paragraph) for paragraph in status.strip().split("\n\n")]
    return [
        {
            "type": "library",
            "name": field["Package"],
            "version": field["Version"],
            "purl": f"pkg:deb/debian/{field['Package']}@{field['Version'].replace(':', '%3A')}"
            f"?arch={field['Architecture']}",
        }
        for field in fields
        if field["Status"] == "install ok installed"
    ]


def _installed(metadata: str) -> Component:
    """Return the Python package of a METADATA file."""
    fields = Parser().parsestr(metadata, headersonly=True)
    component = _python_package(fields["Name"], fields["Version"])
    licence = fields.get("License-Expression")
    return component | ({"licenses": [{"expression": licence}]} if licence else {})


def _built_python(config: dict[str, Any]) -> list[Component]:
    """Return the Python of an official image, which builds it. In others it is a Debian package."""
    environment = dict(pair.split("=", 1) for pair in config["config"].get("Env", []))
    version = environment.get("PYTHON_VERSION")
    if not version:
        return []
    purl = f"pkg:generic/python@{version}"
    return [{"type": "platform", "name": "python", "version": version, "purl": purl}]


def _python_package(name: str, version: str) -> Component:
    canonical = re.sub(r"[-_.]+", "-", name).lower()
    purl = f"pkg:pypi/{canonical}@{version}"
    return {"type": "library", "name": canonical, "version": version, "purl": purl}


def _write(source: Source, path: Path, subject: Component, components: list[Component]) -> Path:
    """Write the document. Equal content gives equal bytes."""
    unique = {
        component["purl"]: component | {"bom-ref": component["purl"]} for component in components
    }
    listed = [unique[purl] for purl in sorted(unique)]
    root = subject | {"bom-ref": subject["purl"]}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, _digest([root, listed]))}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(source.timestamp, UTC).isoformat(),
            "component": root,
            "supplier": {"name": "The busyapi authors"},
        },
        "components": listed,
        "dependencies": [{"ref": root["bom-ref"], "dependsOn": sorted(unique)}],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path


def _digest(content: Any) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
