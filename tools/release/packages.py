"""Build the Python packages and the chart. Two builds of one commit give equal bytes."""

import sys
from pathlib import Path

import helm_python

from tools.release.archives import normalize
from tools.release.commands import run
from tools.release.source import Source

BACKEND = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""
"""Call setuptools directly: it comes from the lock, and an isolated build would download it."""


def build_packages(source: Source, output: Path) -> tuple[Path, Path]:
    """Build the sdist, then the wheel from the sdist, which shows that the sdist is complete."""
    sdist = _build(source, source.tree, "build_sdist", output)
    normalize(sdist, source.timestamp)
    unpacked = source.tree.parent / "sdist"
    unpacked.mkdir()
    run("tar", "-xzpf", sdist, "-C", unpacked)
    (root,) = unpacked.iterdir()
    return sdist, _build(source, root, "build_wheel", output)


def build_chart(source: Source, output: Path) -> Path:
    """Pack the chart as `helm package` does."""
    archive = Path(helm_python.package(source.tree / "charts/busyapi", destination=output))
    normalize(archive, source.timestamp)
    return archive


def _build(source: Source, tree: Path, hook: str, output: Path) -> Path:
    """Call a hook of the build backend and return the file that it wrote."""
    command = (sys.executable, "-c", BACKEND, hook, output.resolve())
    return output / run(*command, cwd=tree, env=source.environment).splitlines()[-1]
