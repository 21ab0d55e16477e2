"""Checkov's opinion on objects, and whether each of its complaints is answered in policy.yaml."""

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from testkit.chart.programs import CHECKOV

SKIPS = yaml.safe_load((Path(__file__).parent / "policy.yaml").read_text())


class Complaint(NamedTuple):
    """A check that an object failed."""

    mode: str
    check: str
    resource: str


def complaints(folder: Path) -> list[Complaint]:
    """What checkov finds in the YAML files of a folder. It asks nobody outside for anything."""
    command = [CHECKOV, "-d", folder, "--framework", "kubernetes", "--skip-download"]
    done = subprocess.run(
        [*map(str, command), "--quiet", "--compact", "--soft-fail", "--output", "json"],
        check=True,
        capture_output=True,
        text=True,
        timeout=280,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["summary"]["resource_count"]
    assert not report["summary"]["parsing_errors"]
    return [
        Complaint(Path(each["file_path"]).stem, each["check_id"], each["resource"])
        for each in report["results"]["failed_checks"]
    ]


def answers(skip: dict[str, str], complaint: Complaint) -> bool:
    """Is this skip about that complaint?"""
    return (
        skip["check"] == complaint.check
        and skip.get("mode", complaint.mode) == complaint.mode
        and bool(re.fullmatch(skip["resource"], complaint.resource))
    )


def unanswered(found: Iterable[Complaint]) -> list[Complaint]:
    """Complaints that no skip is about."""
    return [each for each in found if not any(answers(skip, each) for skip in SKIPS)]


def unused(found: Iterable[Complaint]) -> list[str]:
    """Skips that no complaint is about."""
    there = list(found)
    return [skip["check"] for skip in SKIPS if not any(answers(skip, each) for each in there)]
