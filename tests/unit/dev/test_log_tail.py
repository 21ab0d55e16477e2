"""The last error line of a child's log."""

import json
from pathlib import Path

import pytest

from busyapi.dev.log_tail import TAIL_BYTES, find_last_error, format_tail

VALKEY = "15669:M 28 Nov 2026 18:41:55.731"
STARTED = json.dumps({"event": "api_started", "level": "info"})
FAILED = json.dumps({"event": "fatal_error", "detail": "port 3000 is in use", "level": "error"})
STOPPED = json.dumps({"event": "api_stopped", "level": "info"})


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([STARTED, FAILED, STOPPED], "fatal_error: port 3000 is in use"),
        ([STARTED, STOPPED], ""),
        ([STARTED, "busyapi: BUSYAPI_TOKENS_FILE cannot be read"], None),
        (["Traceback (most recent call last):", "  File …", "OSError: [Errno 28] No space"], None),
        ([f"{VALKEY} * Ready", f"{VALKEY} # Out of space. Exiting..."], "Out of space. Exiting..."),
        # A warning that Valkey starts with is not the reason for its end.
        ([f"{VALKEY} # WARNING Memory overcommit", f"{VALKEY} * Ready"], ""),
        (["[1, 2]", "no error"], ""),
        ([], ""),
    ],
)
def test_last_error_line_of_each_kind_is_found(
    tmp_path: Path, lines: list[str], error: str | None
) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"{line}\n" for line in lines))
    assert find_last_error(log, 0) == (lines[-1] if error is None else error)


def test_error_of_an_earlier_run_is_ignored(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"{FAILED}\n")
    start = log.stat().st_size
    log.write_text(f"{FAILED}\n{STARTED}\n")
    assert find_last_error(log, start) == ""


def test_only_the_end_of_a_large_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"{FAILED}\n" + f"{STARTED}\n" * (TAIL_BYTES // len(STARTED) + 1))
    assert find_last_error(log, 0) == ""
    assert format_tail(log).count(STARTED) == 15
