"""Run checkov, and match its complaints with the reasons in policy.yaml."""

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


def run_checkov(folder: Path) -> list[Complaint]:
    """Return checkov's complaints about the YAML files of a folder. It sends no requests."""
    command = [CHECKOV, "-d", folder, "--framework", "kubernetes", "--skip-download"]
    process = subprocess.run(
        [*map(str, command), "--quiet", "--compact", "--soft-fail", "--output", "json"],
        check=True,
        capture_output=True,
        text=True,
        timeout=280,
    )
    report: dict[str, Any] = json.loads(process.stdout)
    assert report["summary"]["resource_count"]
    assert not report["summary"]["parsing_errors"]
    return [
        Complaint(Path(failure["file_path"]).stem, failure["check_id"], failure["resource"])
        for failure in report["results"]["failed_checks"]
    ]


def matches_skip(skip: dict[str, str], complaint: Complaint) -> bool:
    """Return whether this skip matches that complaint."""
    return (
        skip["check"] == complaint.check
        and bool(re.fullmatch(skip.get("mode", ".*"), complaint.mode))
        and bool(re.fullmatch(skip["resource"], complaint.resource))
    )


def without_skip(failures: Iterable[Complaint]) -> list[Complaint]:
    """Return the complaints that match no skip."""
    return [
        complaint
        for complaint in failures
        if not any(matches_skip(skip, complaint) for skip in SKIPS)
    ]


def find_unused_skips(failures: Iterable[Complaint]) -> list[str]:
    """Return the skips that match no complaint."""
    all_complaints = list(failures)
    return [
        skip["check"]
        for skip in SKIPS
        if not any(matches_skip(skip, complaint) for complaint in all_complaints)
    ]
