"""Printed commands can be typed unchanged."""

import sys
from pathlib import Path

import pytest

from busyapi.dev.command_text import (
    complete_commands,
    format_path,
    format_program,
    format_this_command,
)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use the program as `make run` does, from a clone."""
    path = tmp_path / ".venv" / "bin" / "busyapi"
    path.parent.mkdir(parents=True)
    path.write_text("")
    path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [".venv/bin/busyapi", "dev", "--state", "my state"])
    return path


def test_program_is_printed_by_path_unless_path_has_its_name(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert format_program() == ".venv/bin/busyapi"
    monkeypatch.setenv("PATH", str(program.parent))
    assert format_program() == "busyapi"


@pytest.mark.usefixtures("program")
def test_module_is_printed_with_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/busyapi/__main__.py"])
    assert format_program() == f"{sys.executable} -m busyapi"


@pytest.mark.usefixtures("program")
def test_path_elsewhere_is_printed_whole_and_quoted() -> None:
    assert format_path(Path("/elsewhere/a b")) == "'/elsewhere/a b'"


@pytest.mark.usefixtures("program")
def test_own_command_line_is_repeated_with_another_option() -> None:
    command = ".venv/bin/busyapi dev --state 'my state' --port 3010"
    assert format_this_command("--port", "3010") == command


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("former", [["--port", "1"], ["--port=1"], ["--por", "1"]])
def test_former_value_of_an_option_is_replaced(
    former: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [*sys.argv[:2], *former, *sys.argv[2:], *former])
    command = ".venv/bin/busyapi dev --state 'my state' --port 3010"
    assert format_this_command("--port", "3010") == command


@pytest.mark.parametrize(
    ("message", "completed"),
    [
        (
            "type: busyapi archive confirm-restore --last-id ID",
            "type: .venv/bin/busyapi archive confirm-restore --dir state/archive --last-id ID",
        ),
        (".venv/bin/busyapi archive ls", ".venv/bin/busyapi archive ls"),
        ("the archive is whole", "the archive is whole"),
    ],
)
def test_archive_command_of_a_message_is_completed(
    program: Path, message: str, completed: str
) -> None:
    assert complete_commands(message, program.parents[2] / "state" / "archive") == completed
