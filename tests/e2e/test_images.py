"""The image of an earlier release is built from its own sources, or not at all."""

from pathlib import Path

import pytest

from e2e.images import load_release
from e2e.target import ROOT, Target

CLUSTER = Target(Path("none"), ("false",), None)
"""A build for it fails."""


@pytest.mark.parametrize(
    "chart",
    [
        ROOT / "tests" / "chart" / "released" / "busyapi-9.9.9.tgz",  # in no commit
        ROOT / "pyproject.toml",  # in one with another version
    ],
    ids=lambda path: path.name,
)
def test_a_release_that_is_not_in_the_history_is_not_built(chart: Path) -> None:
    assert not load_release(CLUSTER, chart, "docker.io/library/busyapi:9.9.9")
