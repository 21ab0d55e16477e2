"""A real blackbox-exporter."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from testkit.child_process import Child
from testkit.http1 import fetch
from testkit.ports import reserve_port
from testkit.waiting import wait_until

PROGRAM = "prometheus-blackbox-exporter"
MODULE = "http_2xx"


def find_program() -> str | None:
    """Return the path of the program, or None if it is not installed."""
    return shutil.which(PROGRAM)


class BlackboxExporter(Child):
    """One exporter with the module that the chart's Probe asks for, on a free port."""

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        headers: dict[str, str] | None = None,
        verify: bool = True,
    ) -> None:
        program = find_program()
        assert program, f"{PROGRAM} is missing: run .ci/system-packages"
        self.host, self.port = host, reserve_port()
        http: dict[str, Any] = {
            "preferred_ip_protocol": "ip4",
            "headers": headers or {},
            "tls_config": {"insecure_skip_verify": not verify},
        }
        config = folder / "blackbox.yml"
        config.write_text(yaml.safe_dump({"modules": {MODULE: {"prober": "http", "http": http}}}))
        super().__init__(
            [program, f"--config.file={config}", f"--web.listen-address={host}:{self.port}"],
            log=folder / "blackbox.log",
        )

    def start(self) -> None:
        """Start it and wait until it is healthy."""
        self.spawn()
        wait_until(lambda: self.is_running and self._is_healthy(), f"{self} to answer", seconds=30)

    def _is_healthy(self) -> bool:
        try:
            return fetch(self.port, "/-/healthy", host=self.host).status == 200
        except OSError:
            return False
