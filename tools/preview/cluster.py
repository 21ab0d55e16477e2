"""Data of a release on a cluster, for the panels that need one.

A Prometheus on this machine scrapes through `kubectl proxy`: the kubelets, and busyapi's series
from the cluster's own Prometheus. Nothing on the cluster is changed.
"""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry, start_http_server

from testkit.chart.programs import kubectl
from testkit.child_process import Child
from testkit.ports import reserve_port
from testkit.prometheus import PROGRAM
from testkit.waiting import wait_until
from tools.preview.kube_state import State

SCRAPE_INTERVAL_SECONDS = 5
KUBELET_INTERVAL_SECONDS = 15
"""A kubelet updates its metrics at this interval, however often they are scraped."""
READY_SECONDS = 20.0
ANSWER_SECONDS = 10.0
SERVICE = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy"
"""The cluster's own Prometheus."""


@contextmanager
def watch_namespace(folder: Path, namespace: str) -> Iterator[str]:
    """Scrape a namespace, and yield the URL of the Prometheus that does."""
    proxy_port = reserve_port()

    def get(path: str) -> Any:
        return json.loads(_read(f"http://127.0.0.1:{proxy_port}{path}"))

    with Child([kubectl(), "proxy", f"--port={proxy_port}"], log=folder / "proxy.log") as proxy:
        wait_until(
            lambda: proxy.check_alive() and _answers(f"http://127.0.0.1:{proxy_port}/version"),
            "kubectl proxy",
            seconds=READY_SECONDS,
        )
        nodes = [entry["metadata"]["name"] for entry in get("/api/v1/nodes")["items"]]
        registry = CollectorRegistry()
        registry.register(State(get, namespace))
        state, thread = start_http_server(0, "127.0.0.1", registry)
        with _prometheus(folder, _jobs(proxy_port, state.server_port, nodes, namespace)) as url:
            yield url
        state.shutdown()
        thread.join(ANSWER_SECONDS)


@contextmanager
def _prometheus(folder: Path, jobs: list[dict[str, Any]]) -> Iterator[str]:
    config, port = folder / "prometheus.yaml", reserve_port()
    intervals = {
        "scrape_interval": f"{SCRAPE_INTERVAL_SECONDS}s",
        "scrape_timeout": f"{SCRAPE_INTERVAL_SECONDS}s",
    }
    config.write_text(yaml.safe_dump({"global": intervals, "scrape_configs": jobs}))
    url = f"http://127.0.0.1:{port}"
    argv = [
        str(PROGRAM),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with Child(argv, log=folder / "prometheus.log") as server:
        wait_until(
            lambda: server.check_alive() and _answers(f"{url}/-/ready"),
            "Prometheus",
            seconds=READY_SECONDS,
        )
        yield url


def _jobs(proxy_port: int, state: int, nodes: list[str], namespace: str) -> list[dict[str, Any]]:
    kubelets = [
        _job(f"{node}{path}", proxy_port, f"/api/v1/nodes/{node}/proxy{path}")
        for node in nodes
        for path in ("/metrics", "/metrics/cadvisor")
    ]
    match = f'{{__name__=~"busyapi.*|ALERTS", namespace="{namespace}"}}'
    busyapi = {
        **_job("busyapi", proxy_port, f"{SERVICE}/federate"),
        "params": {"match[]": [match]},
        "honor_labels": True,
    }
    return [*kubelets, {**_job("state", state, "/metrics"), "honor_labels": True}, busyapi]


def _job(name: str, port: int, path: str) -> dict[str, Any]:
    return {
        "job_name": name,
        "metrics_path": path,
        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
    }


def _answers(url: str) -> bool:
    try:
        return bool(_read(url))
    except OSError:
        return False


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - http, this machine
        content: bytes = answer.read()
    return content
