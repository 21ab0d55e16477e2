"""The Makefile and the lock files."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = (
    *("requirements.lock", "requirements-dev.lock", "requirements-lake.lock"),
    "requirements-test.lock",
)
EXTRAS = {
    "requirements.lock": [],
    "requirements-dev.lock": ["dev-server", "parquet"],
    "requirements-lake.lock": ["lake"],
    "requirements-test.lock": ["dev-server", "lake", "loadtest", "parquet", "test"],
}


def read_lock(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_every_dependency_of_its_extras(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"]]
    for extra in EXTRAS[name]:
        requirements += project["optional-dependencies"][extra]
    names = {re.split(r"[\[<>=]", line)[0] for line in requirements} - {"busyapi"}
    assert names <= set(read_lock(name))


@pytest.mark.parametrize("name", [*LOCKS, "bench/requirements.lock"])
def test_a_lock_names_no_registry_and_no_machine(name: str) -> None:
    assert not re.search(r"://|^-|/(home|root|tmp|work)/", (ROOT / name).read_text(), re.MULTILINE)


def test_image_dev_and_tests_have_the_same_versions() -> None:
    image, dev, lake, test = (read_lock(name) for name in LOCKS)
    assert image.items() <= dev.items() <= test.items()
    assert image.items() <= lake.items() <= test.items()


def test_make_without_a_target_lists_every_target() -> None:
    output = subprocess.run(
        ["make", "--no-print-directory", "-C", ROOT],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    ).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert set(re.findall(r"^  make (\S+)", output, re.MULTILINE)) == set(phony[1].split())
