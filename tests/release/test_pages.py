"""What the pages for contributors, security and releases name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("CONTRIBUTING.md", "RELEASING.md", "SECURITY.md")
FOLDERS = ("", "service/busyapi", "charts/busyapi")
"""A path on these pages is below one of these."""
NAMED = re.compile(r"`([\w.-]+/[\w./-]+|[\w.-]+\.(?:py|md|json|yaml|toml))`")
TARGET = re.compile(r"\bmake ([a-z][a-z0-9-]+)")
MADE = {"docs/runbooks/NAME.md"}


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_make_targets_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    paths = set(NAMED.findall(text)) - MADE
    missing = {path for path in paths if not any((ROOT / f / path).exists() for f in FOLDERS)}
    assert missing == set()
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(TARGET.findall(text)) <= set(targets)
