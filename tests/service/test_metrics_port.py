"""Scrapes: their formats, and the series that exist before the first event."""

import subprocess
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser
from prometheus_client.parser import text_string_to_metric_families

from busyapi.telemetry import metric_defs_api, metric_defs_flusher
from testkit.api_client import BODY, RawConnection, render_request
from testkit.http1 import fetch
from testkit.processes import Process, Stack
from testkit.proxy import Proxy
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks
from tests.service.conftest import StartApi
from tests.service.test_api_metrics import samples

OPENMETRICS = "application/openmetrics-text"
PROMTOOL = Path("/usr/bin/promtool")
METRIC_DEFS = {"api": metric_defs_api.METRICS, "flusher": metric_defs_flusher.METRICS}


@pytest.fixture(params=["api", "flusher"])
def role(request: pytest.FixtureRequest) -> str:
    """Each role in turn."""
    name: str = request.param
    return name


def parse_openmetrics(text: str) -> list[Metric]:
    """Parse OpenMetrics strictly."""
    return [*parser.text_string_to_metric_families(text)]  # type: ignore[no-untyped-call]


def find_process(stack: Stack, role: str) -> Process:
    """Return the process of a role."""
    return stack.apis[0] if role == "api" else stack.flushers[0]


def test_openmetrics_with_units_for_clients_that_accept_it(contract: Stack, role: str) -> None:
    accept = {"accept": f"{OPENMETRICS};version=1.0.0,text/plain;version=0.0.4;q=0.5"}
    answer = fetch(find_process(contract, role).scrape_port, "/metrics", headers=accept)
    assert answer.headers["content-type"].startswith(f"{OPENMETRICS}; version=1.0.0")
    units = {family.name: family.unit for family in parse_openmetrics(answer.body.decode())}
    assert units == {row.name: row.unit for row in METRIC_DEFS[role]}


def test_text_for_all_others_passes_promtool(contract: Stack, role: str) -> None:
    answer = fetch(find_process(contract, role).scrape_port, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    run = run_promtool(answer.body)
    assert (run.returncode, run.stdout + run.stderr) == (0, b"")


def run_promtool(text: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run `promtool check metrics` on an exposition."""
    return subprocess.run(
        [PROMTOOL, "check", "metrics"],
        input=text,
        capture_output=True,
        check=False,
        timeout=20,
    )


def test_promtool_finds_a_bad_metric() -> None:
    run = run_promtool(
        b"# HELP a_milliseconds A.\n# TYPE a_milliseconds counter\na_milliseconds 1\n"
    )
    assert run.returncode
    assert b"a_milliseconds" in run.stdout + run.stderr


def test_both_formats_have_the_same_buckets(contract: Stack, role: str) -> None:
    process = find_process(contract, role)
    text = fetch(process.scrape_port, "/metrics").body.decode()
    other = fetch(process.scrape_port, "/metrics", headers={"accept": OPENMETRICS}).body.decode()
    bounds = [
        {
            (family.name, sample.labels["le"])
            for family in families
            for sample in family.samples
            if "le" in sample.labels
        }
        for families in (
            text_string_to_metric_families(text),
            parse_openmetrics(other),
        )
    ]
    assert bounds[0] == bounds[1]
    if role == "api":
        assert ("busyapi_request_seconds", "0.05") in bounds[0]


def test_counters_of_alerts_exist_before_the_first_event(
    contract: Stack, start_api: StartApi
) -> None:
    fresh = start_api()
    for metric in (metric_defs_api.REFUSED, metric_defs_api.COMMITTER_FAILURES):
        (label,) = metric.labels
        series = samples(fresh, metric.sample_name)
        assert {labels[label.name] for labels, _ in series} == {*label.values}
    statuses = {
        (labels["route"], labels["status"]): value
        for labels, value in samples(fresh, "busyapi_requests_total")
    }
    for route in metric_defs_api.POST_ROUTES:
        for status in ("201", "500", "503"):
            assert statuses[route, status] == 0
    flusher = contract.flushers[0]
    for name in ("busyapi_epoch_jumps_total", "busyapi_quarantined_usages_total"):
        assert samples(flusher, name) == [({"partition": "0"}, 0)]
    assert {
        labels["kind"]: value for labels, value in samples(flusher, "busyapi_archive_errors_total")
    } == {
        "full": 0,
        "io": 0,
        "sync": 0,
    }


def test_a_request_that_a_stop_cuts_off_counts_as_failed(stacks: Stacks, valkey: Server) -> None:
    """Its commit takes longer than the stop timeout."""
    with Proxy(valkey.port) as proxy:
        settings = {
            "BUSYAPI_REDIS_URL": proxy.url,
            "BUSYAPI_COMMIT_DEADLINE": "60",
            "BUSYAPI_STOP_TIMEOUT": "3",
        }
        api = stacks(valkey, settings=settings).apis[0]
        counts: list[float] = []
        thread = Thread(target=collect_failure_counts, args=(api, counts))
        with RawConnection(api.port) as fast, RawConnection(api.port) as ordinary:
            proxy.mute()
            fast.send(render_request("POST", "/api/usages", BODY))
            ordinary.send(
                render_request("POST", "/api/usages", BODY, headers=("Idempotency-Key: cut",))
            )
            wait_until(lambda: api.read_metric("busyapi_pending_usages") == 2, "both to be pending")
            thread.start()
            api.terminate()
            assert api.wait(20) == 0
        thread.join(10)
    assert counts[-1] == 2


def collect_failure_counts(api: Process, counts: list[float]) -> None:
    """Collect the number of failed requests from scrapes until the process ends."""
    while api.is_running:
        with suppress(OSError, EOFError):
            counts.append(api.read_metric("busyapi_requests_total", status="500"))
        time.sleep(0.05)
