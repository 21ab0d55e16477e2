"""Fixtures of the unit tests."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")  # noqa: S108 - a file system, not a place for temporary files


@pytest.fixture
def fast_path(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder in memory if possible, for tests that recover hundreds of times."""
    if not _MEMORY.is_dir():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir=_MEMORY, prefix="busyapi-test-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
