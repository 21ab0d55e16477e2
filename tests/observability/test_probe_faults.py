"""The probe of a real blackbox-exporter cannot reach the API, and fires its alert."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from testkit.child_process import Child
from testkit.http1 import fetch
from testkit.ports import reserve_port
from testkit.processes import Stack
from testkit.prometheus import NAMESPACE, RELEASE, Prometheus
from testkit.servers import Server
from testkit.waiting import wait_until

ALERT = "BusyapiProbeFailing"
MODULES = {"http_2xx": {"prober": "http", "http": {"preferred_ip_protocol": "ip4"}}}


class BlackboxExporter(Child):
    """One exporter on a free port."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("prometheus-blackbox-exporter")
        assert program, "prometheus-blackbox-exporter is missing: run .ci/system-packages"
        self.port = reserve_port()
        config = folder / "blackbox.yml"
        config.write_text(yaml.safe_dump({"modules": MODULES}))
        super().__init__(
            [program, f"--config.file={config}", f"--web.listen-address=127.0.0.1:{self.port}"],
            log=folder / "blackbox.log",
        )

    def start(self) -> None:
        """Start it and wait until it is healthy."""
        self.spawn()
        wait_until(lambda: self.is_running and self._is_healthy(), f"{self} to answer", seconds=30)

    def _is_healthy(self) -> bool:
        try:
            return fetch(self.port, "/-/healthy").status == 200
        except OSError:
            return False


def probe_job(exporter: BlackboxExporter, url: str) -> dict[str, Any]:
    """Return the scrape job that the operator makes from the chart's Probe."""
    return {
        "job_name": "probe",
        "metrics_path": "/probe",
        "params": {"module": ["http_2xx"], "target": [url]},
        "static_configs": [
            {
                "targets": [f"127.0.0.1:{exporter.port}"],
                "labels": {"namespace": NAMESPACE, "release": RELEASE, "instance": url},
            }
        ],
    }


def test_api_that_cannot_be_reached_fires_an_alert(tmp_path: Path, rules: dict[str, Any]) -> None:
    with (
        BlackboxExporter(tmp_path) as exporter,
        Server(tmp_path / "redis") as server,
        Stack(tmp_path / "stack", server) as stack,
    ):
        prometheus = Prometheus(tmp_path / "prometheus", stack, rules)
        path = tmp_path / "prometheus" / "prometheus.yml"
        config = yaml.safe_load(path.read_text())
        url = f"http://127.0.0.1:{stack.port}/openapi.json"
        config["scrape_configs"].append(probe_job(exporter, url))
        path.write_text(yaml.safe_dump(config))
        (api,) = stack.apis
        with prometheus:
            wait_until(lambda: prometheus.query("probe_success == 1"), "the probe", seconds=20)
            prometheus.wait_until_resolved(ALERT)
            api.stop()
            prometheus.wait_until_firing(ALERT)
            api.start()
            prometheus.wait_until_resolved(ALERT)
