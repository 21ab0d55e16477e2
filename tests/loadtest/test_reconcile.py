"""Counts that agree pass, and each disagreement is found."""

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from loadtest.__main__ import main
from loadtest.reconcile import ToolCounts, find_disagreements, reconcile
from loadtest.target import State, Target, Unreachable, Verified, parse_verify_output, verify
from testkit.api_client import USAGE, check_stored, send
from testkit.processes import Stack

BEFORE = State(count=100, archived=100, verified=Verified(lines=100))
AFTER = State(count=110, archived=110, verified=Verified(lines=110))
TOOL_COUNTS = ToolCounts("tool", sent=12, created=10, refused=2)


def describe_disagreements(
    counts: ToolCounts = TOOL_COUNTS, before: State = BEFORE, after: State = AFTER
) -> str:
    return "; ".join(find_disagreements(counts, reconcile(counts, before, after)))


def test_counts_that_agree_pass() -> None:
    assert describe_disagreements() == ""
    assert describe_disagreements(replace(TOOL_COUNTS, created=8, unknown=2)) == ""
    assert (
        describe_disagreements(
            before=replace(BEFORE, verified=None), after=replace(AFTER, verified=None)
        )
        == ""
    )


@pytest.mark.parametrize(
    ("counts", "verified", "message"),
    [
        ({}, {"lines": 109}, "1 are missing from the archive"),
        ({}, {"lines": 111}, "1 are archived but were not sent"),
        ({}, {"lines": 111}, "the API stored 10 usages, but the archive has 11 new lines"),
        ({}, {"repeated": 1}, "1 ids were issued or archived twice"),
        ({}, {"missing": 3}, "3 are missing"),
        ({}, {"damaged": 1}, "1 places of the archive are damaged"),
        ({"duplicates": 1}, {}, "1 ids were issued or archived twice"),
        ({"sent": 13}, {}, "13 were sent, but 10 answered with 201"),
        ({"unexpected": 1}, {}, "had an unexpected answer"),
        ({"not_sent": 1}, {}, "1 were planned and not sent"),
        ({"created": 7, "unknown": 2, "sent": 11}, {}, "1 are archived but were not sent"),
    ],
)
def test_each_disagreement_is_found(
    counts: dict[str, int], verified: dict[str, int], message: str
) -> None:
    changed = {"lines": 110, **verified}
    counts_of_tool = ToolCounts(**{**asdict(TOOL_COUNTS), **counts})
    assert message in describe_disagreements(
        counts_of_tool, after=replace(AFTER, verified=Verified(**changed))
    )


def test_the_output_of_verify_is_understood() -> None:
    text = (
        "partition 0: 7 usages up to seq 9; 0 seqs in 0 gap records; 0 in quarantine\n"
        "  missing   ids 3 to 4 in no file\n"
        "  repeated  id 5 in a and in b\n"
        "  damaged   a: its checksum\n"
        "partition 1: 5 usages up to seq 5; 0 seqs in 0 gap records; 0 in quarantine\n"
        "3 problems found\n"
    )
    assert parse_verify_output(text) == Verified(lines=12, missing=2, repeated=1, damaged=1)


def test_a_failed_verify_is_not_an_empty_archive() -> None:
    with pytest.raises(Unreachable):
        verify(["sh", "-c", "echo no such pod >&2; exit 1"])


def copy_archive(stack: Stack, into: Path) -> Path:
    """Copy the archive so that a test can damage it; return its newest file."""
    shutil.copytree(stack.archive, into)
    return max(into.rglob("usages-*"), key=lambda path: path.name)


def test_a_missing_or_added_line_makes_a_run_fail(
    stack: Stack, target_options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["snapshot", *target_options]) == 0
    before = tmp_path / "before.json"
    before.write_text(capsys.readouterr().out)
    for _ in range(5):
        check_stored(send(stack.port, USAGE))
    counts = ["reconcile", str(before), "--tool=mine", "--sent=5", "--created=5", target_options[0]]
    assert main([*counts, target_options[1]]) == 0
    assert "all counts agree" in capsys.readouterr().out

    truncated = copy_archive(stack, tmp_path / "truncated")
    truncated.write_bytes(truncated.read_bytes()[:-20])
    assert main([*counts, f"--archive={tmp_path / 'truncated'}"]) == 1
    assert "missing from the archive" in capsys.readouterr().out

    planted = copy_archive(stack, tmp_path / "planted")
    first = int(re.findall(r"-(\d{16})", planted.name)[0])
    shutil.copy(
        planted, planted.with_name(planted.name.replace(f"{first:016}", f"{first + 99:016}"))
    )
    assert main([*counts, f"--archive={tmp_path / 'planted'}"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_an_archived_usage_that_was_not_answered_makes_a_run_fail(
    stack: Stack, target_options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_stored(send(stack.port, USAGE))
    before = tmp_path / "before.json"
    before.write_text(json.dumps({"count": 0, "archived": 0, "verified": {"lines": 0}}))
    assert main(["snapshot", *target_options]) == 0
    total = json.loads(capsys.readouterr().out)["count"]
    counts = ["reconcile", str(before), *target_options]
    assert main([*counts, f"--sent={total}", f"--created={total}"]) == 0
    assert main([*counts, f"--sent={total - 1}", f"--created={total - 1}"]) == 1
    assert "archived but were not sent" in capsys.readouterr().out


def test_the_load_of_another_client_is_found(stack: Stack, target: Target) -> None:
    before = target.wait_settled()
    check_stored(send(stack.port, USAGE))
    assert "but were not sent" in describe_disagreements(
        ToolCounts("tool", sent=0, created=0), before, target.wait_settled()
    )


def test_an_unreachable_target_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", "--url=http://127.0.0.1:1"]) == 2
    assert "http://127.0.0.1:1/api/usages/count" in capsys.readouterr().err
