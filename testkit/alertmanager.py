"""A real Alertmanager with a configuration of this repository, and amtool."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testkit.child_process import Child
from testkit.http1 import fetch
from testkit.ports import reserve_port
from testkit.waiting import wait_until

PROGRAM = "prometheus-alertmanager"


def amtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run amtool."""
    program = shutil.which("amtool")
    assert program, "amtool is missing: run .ci/system-packages"
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


class Alertmanager(Child):
    """One server on a free port. Its receiver gets no notification."""

    def __init__(self, folder: Path, config: Path) -> None:
        program = shutil.which(PROGRAM)
        assert program, f"{PROGRAM} is missing: run .ci/system-packages"
        folder.mkdir(parents=True, exist_ok=True)
        self.port = reserve_port()
        super().__init__(
            [
                program,
                f"--config.file={config}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--cluster.listen-address=",
            ],
            log=folder / "alertmanager.log",
        )

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.spawn()
        wait_until(lambda: self.is_running and self._is_ready(), f"{self} to be ready", seconds=30)

    def _is_ready(self) -> bool:
        try:
            return fetch(self.port, "/-/ready").status == 200
        except OSError:
            return False

    def _ask(self, *arguments: str) -> str:
        url = f"--alertmanager.url=http://127.0.0.1:{self.port}"
        result = amtool(url, *arguments)
        assert not result.returncode, result.stderr
        return result.stdout

    def add(self, labels: Mapping[str, str]) -> None:
        """Let an alert fire."""
        self._ask("alert", "add", *(f"{name}={value}" for name, value in labels.items()))

    def notified(self) -> list[dict[str, str]]:
        """Return the labels of the alerts that fire and are not inhibited."""
        alerts: list[dict[str, Any]] = json.loads(self._ask("alert", "query", "-o", "json"))
        return [alert["labels"] for alert in alerts]
