"""Alerts fire if a real blackbox-exporter cannot reach the API, or gets an old certificate."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from testkit.blackbox import MODULE, BlackboxExporter
from testkit.certificates import make_certificates
from testkit.processes import Stack
from testkit.prometheus import NAMESPACE, RELEASE, Prometheus
from testkit.servers import Server
from testkit.waiting import wait_until

ALERT = "BusyapiProbeFailing"
EXPIRING = "BusyapiCertificateExpiring"


def probe_job(exporter: BlackboxExporter, url: str) -> dict[str, Any]:
    """Return the scrape job that the operator makes from the chart's Probe."""
    return {
        "job_name": f"probe {url}",
        "metrics_path": "/probe",
        "params": {"module": [MODULE], "target": [url]},
        "static_configs": [
            {
                "targets": [f"127.0.0.1:{exporter.port}"],
                "labels": {"namespace": NAMESPACE, "release": RELEASE, "instance": url},
            }
        ],
    }


def add_probe(folder: Path, exporter: BlackboxExporter, url: str) -> None:
    """Let Prometheus, whose files are in a folder, probe a URL."""
    path = folder / "prometheus.yml"
    config = yaml.safe_load(path.read_text())
    config["scrape_configs"].append(probe_job(exporter, url))
    path.write_text(yaml.safe_dump(config))


@contextmanager
def serve_tls(folder: Path, *, days: int) -> Iterator[str]:
    """Run a server with a certificate that is valid for some days, and yield its URL."""
    folder.mkdir()
    files = make_certificates(folder, days=days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_api_that_cannot_be_reached_and_probe_without_result_fire_an_alert(
    tmp_path: Path, rules: dict[str, Any]
) -> None:
    with (
        BlackboxExporter(tmp_path) as exporter,
        Server(tmp_path / "redis") as server,
        Stack(tmp_path / "stack", server) as stack,
    ):
        prometheus = Prometheus(tmp_path / "prometheus", stack, rules)
        url = f"http://127.0.0.1:{stack.port}/openapi.json"
        add_probe(tmp_path / "prometheus", exporter, url)
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


def test_certificate_that_expires_within_a_week_fires_an_alert(
    tmp_path: Path, rules: dict[str, Any]
) -> None:
    with (
        BlackboxExporter(tmp_path, verify=False) as exporter,
        serve_tls(tmp_path / "soon", days=1) as soon,
        serve_tls(tmp_path / "late", days=30) as late,
        Server(tmp_path / "redis") as server,
        Stack(tmp_path / "stack", server) as stack,
    ):
        prometheus = Prometheus(tmp_path / "prometheus", stack, rules)
        for url in (soon, late):
            add_probe(tmp_path / "prometheus", exporter, url)
        with prometheus:
            prometheus.wait_until_firing(EXPIRING)
            alerts = [a["labels"] for a in prometheus.alerts()]
            assert {a["instance"] for a in alerts if a["alertname"] == EXPIRING} == {soon}
            prometheus.wait_until_resolved(ALERT)
