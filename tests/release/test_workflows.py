"""The workflows call only make, with pinned actions and few permissions."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
MAY_WRITE = {("release", "packages")}
PINNED = re.compile(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def load(path: Path) -> dict[Any, Any]:
    workflow: dict[Any, Any] = yaml.safe_load(path.read_text())
    return workflow


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def test_all_workflows_are_known() -> None:
    assert [path.stem for path in WORKFLOWS] == ["check", "e2e", "release", "test"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_is_a_make_target(path: Path) -> None:
    for step in steps(path):
        command = step.get("run")
        if command:
            called = re.fullmatch(r"make ([a-z0-9-]+)( [A-Z]+=\S+)*", command)
            assert called, command
            assert called[1] in TARGETS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_command_contains_an_expression(path: Path) -> None:
    """The forge would insert the value as code, and a tag's name may contain a command."""
    assert [step["run"] for step in steps(path) if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_and_images_are_pinned_by_digest(path: Path) -> None:
    text = path.read_text()
    used = re.findall(r"uses: (.*)$", text, re.MULTILINE)
    assert used
    assert [action for action in used if not PINNED.fullmatch(action)] == []
    images = re.findall(r"image: (.*)$", text, re.MULTILINE)
    assert [image for image in images if not re.search(r"@sha256:[0-9a-f]{64}$", image)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_job_may_read_and_no_more(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        for name, access in job.get("permissions", {}).items():
            assert access == "read" or (path.stem, name) in MAY_WRITE
        assert job["timeout-minutes"] <= 90
    assert "pull_request_target" not in path.read_text()
    checkouts = [step for step in steps(path) if "checkout" in step.get("uses", "")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_a_dirty_tree_after_make_generate_fails() -> None:
    commands = [step.get("run") for step in steps(ROOT / ".github/workflows/check.yml")]
    assert "make generate-check" in commands
    assert "git status --porcelain" in (ROOT / "Makefile").read_text()
