"""The alert fires if a real blackbox-exporter cannot reach the API, or gives no result."""

from pathlib import Path
from typing import Any

import yaml

from testkit.blackbox import MODULE, BlackboxExporter
from testkit.processes import Stack
from testkit.prometheus import NAMESPACE, RELEASE, Prometheus
from testkit.servers import Server
from testkit.waiting import wait_until

ALERT = "BusyapiProbeFailing"


def probe_job(exporter: BlackboxExporter, url: str) -> dict[str, Any]:
    """Return the scrape job that the operator makes from the chart's Probe."""
    return {
        "job_name": "probe",
        "metrics_path": "/probe",
        "params": {"module": [MODULE], "target": [url]},
        "static_configs": [
            {
                "targets": [f"127.0.0.1:{exporter.port}"],
                "labels": {"namespace": NAMESPACE, "release": RELEASE, "instance": url},
            }
        ],
    }


def test_api_that_cannot_be_reached_and_probe_without_result_fire_an_alert(
    tmp_path: Path, rules: dict[str, Any]
) -> None:
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
            exporter.stop()
            prometheus.wait_until_firing(ALERT)
            (alert,) = (a for a in prometheus.alerts() if a["labels"]["alertname"] == ALERT)
            assert alert["labels"]["severity"] == "warning"  # no result is not an outage
