"""The README's ways to start, in a clean copy of the repository, from the package registry."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from testkit.child_process import Child
from testkit.dev_process import find_two_ports
from testkit.http1 import fetch
from testkit.ports import reserve_port
from testkit.waiting import wait_until

ROOT = Path(__file__).parents[2]
USAGE = b'{"patientId":"100","timestamp":1478009511000,"medication":"Albuterol"}'
START_SECONDS = 240.0

pytestmark = pytest.mark.long


def readme_line(start: str) -> str:
    """Return the README's only command line that begins with `start`."""
    text = (ROOT / "README.md").read_text()
    (line,) = re.findall(rf"^ {{4}}({re.escape(start)}.*)$", text, re.MULTILINE)
    return str(line)


@pytest.mark.parametrize("line", ["make run", readme_line("python3 -m venv")])
def test_line_starts_everything_and_parquet_can_be_exported(tmp_path: Path, line: str) -> None:
    clone = tmp_path / "clone"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    port = reserve_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BUSYAPI_")},
        "PORT": str(port),
        "BUSYAPI_METRICS_PORT": str(find_two_ports()),
        "BUSYAPI_FLUSHER_PORT": str(reserve_port()),
    }
    # The shell becomes the last command, which ends with it.
    *first, last = line.split(" && ")
    shell = ["sh", "-c", " && ".join([f"cd {clone}", *first, f"exec {last}"])]
    with Child(shell, log=tmp_path / "run.out", environment=environment) as run:
        wait_until(
            lambda: run.check_alive() and "Post a usage:" in run.log.read_text(),
            f"{run} to be ready",
            seconds=START_SECONDS,
        )
        assert fetch(port, "/api/usages", method="POST", body=USAGE).json() == {"id": 1}
        wait_until(lambda: fetch(port, "/api/usages/count").json()["archived"] == 1, "the archive")
        if line == "make run":
            output = run.log.read_text()
            assert re.search(r"Installing \d+ packages .* usually less than a minute", output)
        run.stop()  # killed, make would leave what it started
    export = subprocess.run(
        [".venv/bin/busyapi", "archive", "export", "out.parquet", "--dir", ".busyapi/archive"],
        cwd=clone,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "1 usages in out.parquet" in export.stdout
