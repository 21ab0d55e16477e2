"""The commands of back-up.md copy the archive and its audit trail."""

from pathlib import Path

from testkit.api_client import USAGE, check_stored, send
from testkit.chart.rendering import ROOT
from testkit.docs.runbook_shell import StackShell
from testkit.docs.runbooks import parse
from testkit.http1 import fetch
from testkit.processes import Stack
from testkit.servers import Server

PAGE = ROOT / "docs" / "how-to" / "back-up.md"


def back_up(shell: StackShell) -> tuple[list[str], str]:
    """Run the block of the page. Return its failures and its output."""
    (block,) = parse("back-up", PAGE.read_text()).of("sh", "back-up")
    result = shell.run(block.text)
    return result.failures, result.output


def list_audit_files(root: Path) -> dict[str, bytes]:
    """Return the files of the trails below a folder, except the lock."""
    files = (path for path in root.glob("p*/audit/*") if path.name != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_copy_has_the_audit_trail_and_both_are_verified(tmp_path: Path) -> None:
    settings = {"BUSYAPI_AUDIT": "required"}
    with (
        Server(tmp_path / "redis") as server,
        Stack(tmp_path / "stack", server, settings=settings) as stack,
    ):
        number = check_stored(send(stack.port, USAGE))
        stack.wait_until_archived()
        assert fetch(stack.port, f"/api/usages/{number}").status == 200
        shell = StackShell(tmp_path / "bin", stack, server, stack.archive)
        patient = str(USAGE["patientId"])
        assert shell.run(f"busyapi archive cat --patient {patient}").failures == []
        failures, output = back_up(shell)
        trail = list_audit_files(stack.archive)
    assert failures == []
    assert output.count("no problem found") == 2
    assert {"p00/audit/head", "p00/audit/salt"} < trail.keys()
    assert list_audit_files(shell.folder / "proof") == trail


def test_copy_without_a_trail_is_no_failure(running: tuple[Stack, Server], tmp_path: Path) -> None:
    stack, server = running
    shell = StackShell(tmp_path / "bin", stack, server, stack.archive)
    failures, output = back_up(shell)
    assert failures == []
    assert "no problem found" in output
    assert list_audit_files(shell.folder / "proof") == {}
