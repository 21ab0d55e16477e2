"""`busyapi dev` when a process fails: it keeps running and prints what to do."""

import os
import re
import shlex
import shutil
import signal
import subprocess
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from testkit.api_client import BODY
from testkit.dev_process import STARTED_TEXT, Dev
from testkit.http1 import fetch
from testkit.volume import fill_volume, mount_small_volume

POSTS = 200
"""More posts than fit into the last page of an append-only file."""


def test_full_volume_is_named_and_restarts_back_off_until_there_is_space(tmp_path: Path) -> None:
    settings = {"BUSYAPI_COMMIT_DEADLINE": "1"}
    with mount_small_volume(tmp_path / "state", "16m"), Dev(tmp_path, settings=settings) as dev:
        first = dev.post()
        ballast = fill_volume(dev.state)
        for _ in range(POSTS):
            if "valkey ended" in dev.output():
                break
            with suppress(OSError, HTTPException):
                fetch(dev.port, "/api/usages", method="POST", body=BODY)
        dev.wait_for_output("valkey ended with exit code 1; restarting in 0.1 s\n")
        assert f"    The volume of {dev.state} is full: free some space.\n" in dev.output()
        # Each repeated or new write ends the Valkey that has just started.
        while "restarting in 0.8 s" not in dev.output():
            with suppress(OSError, HTTPException):
                fetch(dev.port, "/api/usages", method="POST", body=BODY, seconds=1)
        repeated = "valkey ended with exit code 1 again for the same reason; restarting in"
        assert re.findall(f"{repeated} (.*) s", dev.output())[:3] == ["0.2", "0.4", "0.8"]
        ballast.unlink()
        assert dev.post() > first
        dev.wait_for_output("valkey is ready again")


def test_last_error_line_of_a_child_is_shown(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("write,read secret\n")
    with Dev(tmp_path, "--processes", "1", settings={"BUSYAPI_TOKENS_FILE": str(tokens)}) as dev:
        tokens.unlink()
        os.kill(dev.children()["api-0"], signal.SIGKILL)
        dev.wait_for_output("api-0 ended with exit code 2; restarting in 0.2 s")
        output = dev.output()
        assert "    busyapi: BUSYAPI_TOKENS_FILE cannot be read" in output
        assert f"    log: {dev.state}/log/api-0.log" in output


def test_restored_archive_needs_an_operator_and_the_printed_command_works(
    tmp_path: Path,
) -> None:
    with Dev(tmp_path, "--processes", "1") as dev:
        last = [dev.post() for _ in range(5)][-1]
        assert dev.stop(40) == 0
        # As after a restore: the files are copies, and Valkey's data is lost.
        original = dev.state / "archive.original"
        (dev.state / "archive").rename(original)
        shutil.copytree(original, dev.state / "archive")
        shutil.rmtree(dev.state / "valkey")
        dev.spawn()
        dev.wait_for_output("flusher-0 is halted and needs a decision")
        (command,) = re.findall(r"type: (.* archive confirm-restore .*)", dev.output())
        # The start has finished, so its deadline no longer applies: a process that ends restarts.
        os.kill(dev.children()["valkey"], signal.SIGKILL)
        dev.wait_for_output("valkey was ended by SIGKILL; restarting")
        assert STARTED_TEXT not in dev.output()
        words = shlex.split(command.replace(" ID", f" {last}"))
        run = subprocess.run(
            [*words, "--yes"], check=False, capture_output=True, text=True, timeout=30
        )
        assert run.returncode == 0, run.stderr
        dev.wait_for_output(STARTED_TEXT)
        assert dev.post() > last
