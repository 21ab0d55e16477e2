"""`busyapi lake` as a process: its settings, its files, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from busyapi.cli import main
from testkit.archive.builder import make_batch, recover_writer


@pytest.fixture
def archive(fast_path: Path) -> Path:
    """Return an archive with a finished segment."""
    root = fast_path / "archive"
    writer = recover_writer(root)
    writer.append([make_batch(1, 5)])
    writer.close()
    return root


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Return a socket to which a catalog's clients connect, and get no answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        yield listener


def uri_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def start(archive: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    return run("-m", "busyapi", "lake", "--dir", str(archive), *arguments, **settings)


def run(*arguments: str, **settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "BUSYAPI_LAKE_METRICS_PORT": "0", **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_turn_fills_a_table_that_only_the_owner_and_its_group_read(archive: Path) -> None:
    process = start(archive, "--once")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    modes = {
        path.is_dir(): path.stat().st_mode & 0o777
        for path in archive.with_name("lake").rglob("busyapi*")
    }
    assert modes == {True: 0o750, False: 0o640}


@pytest.mark.parametrize("name", ["usages", "busyapi.", "../x.y"])
def test_a_table_without_a_valid_name_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BUSYAPI_LAKE_TABLE", name)
    assert main(["lake", "--once"]) == 2
    assert "BUSYAPI_LAKE_TABLE must be" in capsys.readouterr().err


def test_a_stop_does_not_wait_for_a_catalog_that_does_not_answer(
    archive: Path, silent: socket.socket
) -> None:
    """Stopping a loop is no failure. A turn of `--once` that did not end is one."""
    settings = {"BUSYAPI_LAKE_CATALOG": uri_of(silent), "BUSYAPI_LAKE_WAREHOUSE": "analytics"}
    processes = {0: start(archive, **settings), 1: start(archive, "--once", **settings)}
    with ExitStack() as stack:
        for _ in processes:
            connection, _ = silent.accept()
            stack.enter_context(connection)
            assert b"warehouse=analytics " in connection.recv(4096), "not the catalog's own name"
        began = time.monotonic()
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for code, process in processes.items():
            output, _ = process.communicate(timeout=60)
            assert (process.returncode, output) == (code, "")
    assert time.monotonic() - began < 6


def test_a_process_whose_catalog_does_not_answer_for_long_connects_again(
    archive: Path, silent: socket.socket
) -> None:
    code = (
        "from busyapi.lake import loop; loop.MAX_STEP_SECONDS = 0.5;"
        f"from busyapi.cli import main; main(['lake', '--dir', {str(archive)!r}])"
    )
    settings = {"BUSYAPI_LAKE_CATALOG": uri_of(silent), "BUSYAPI_LAKE_INTERVAL": "0.1"}
    process = run("-c", code, **settings)
    with silent.accept()[0], silent.accept()[0]:
        assert process.poll() is None, "it ended, and its pod was not ready"
        process.kill()
    output, _ = process.communicate(timeout=60)
    assert "lake_stuck" in output
