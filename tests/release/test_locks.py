"""Every package is installed from a lock that has its hash."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT_LOCKS = tuple(f"requirements{part}.lock" for part in ("", "-dev", "-lake", "-test"))
PLACES = ("requirements*.lock", "docs/**/*.lock", "testkit/**/*.lock", "tests/**/*.lock")
LOCKS = sorted(str(path.relative_to(ROOT)) for place in PLACES for path in ROOT.glob(place))
ENTRY = re.compile(r"^(\S+)==\S+.*\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)*)", re.MULTILINE)
INSTALL = re.compile(r"\bpip[3\d.]* +(?:--?\S+ +)*install\b.*")
SOURCES = (
    "Makefile",
    "service/Dockerfile",
    "k8s/*/Dockerfile",
    ".ci/*",
    ".github/workflows/*",
    "k8s/kind/up",
)
VERIFIED = re.compile(
    r"--require-hashes --only-binary :all: |--no-index "
    # Spark is published as source only.
    r"|--require-hashes -r tests/readers/"
)


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_has_a_hash(name: str) -> None:
    entries = ENTRY.findall((ROOT / name).read_text())
    assert entries
    assert [package for package, hashes in entries if not hashes] == []


@pytest.mark.parametrize("name", PROJECT_LOCKS)
def test_a_lock_has_the_tool_that_builds_busyapi(name: str) -> None:
    assert re.search(r"^setuptools==", (ROOT / name).read_text(), re.MULTILINE)


def join_lines(text: str) -> str:
    """Join the lines of each command, and replace $(PIP) by pip."""
    return re.sub(r"\s*\\\n\s*", " ", text).replace("$(PIP)", "pip")


def test_pip_installs_nothing_without_a_hash() -> None:
    installs = [
        (path.name, match[0])
        for pattern in SOURCES
        for path in sorted(ROOT.glob(pattern))
        for match in INSTALL.finditer(join_lines(path.read_text()))
    ]
    assert {name for name, _ in installs} >= {"Makefile", "Dockerfile"}
    assert [install for install in installs if not VERIFIED.search(install[1] + " ")] == []
