"""Paths and make targets on the pages for contributors, security and releases exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("CONTRIBUTING.md", "RELEASING.md", "SECURITY.md")
FOLDERS = ("", "service/busyapi", "charts/busyapi")
"""Paths on these pages are relative to one of these folders."""
NAMED = re.compile(r"`([\w.-]+/[\w./-]+|[\w.-]+\.(?:py|md|json|yaml|toml))`")
TARGET = re.compile(r"(?:`|^    |RELEASE_KEY=\S+ )make ([a-z][a-z0-9-]+)", re.MULTILINE)
PLACEHOLDERS = ("NAME", "VERSION")


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_make_targets_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    paths = {path for path in NAMED.findall(text) if not any(p in path for p in PLACEHOLDERS)}
    assert paths
    missing = {path for path in paths if not any((ROOT / f / path).exists() for f in FOLDERS)}
    assert missing == set()
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    called = set(TARGET.findall(text))
    assert called
    assert called <= set(targets)
