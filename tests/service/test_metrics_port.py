"""What a scrape gets: in which format, and what is there before anything happened."""

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
from tests.service.conftest import Apis
from tests.service.test_api_metrics import samples

OPENMETRICS = "application/openmetrics-text"
PROMTOOL = Path("/usr/bin/promtool")
ROWS = {"api": metric_defs_api.METRICS, "flusher": metric_defs_flusher.METRICS}


@pytest.fixture(params=["api", "flusher"])
def role(request: pytest.FixtureRequest) -> str:
    """Each role in turn."""
    chosen: str = request.param
    return chosen


def openmetrics(text: str) -> list[Metric]:
    """Read OpenMetrics, strictly."""
    return [*parser.text_string_to_metric_families(text)]  # type: ignore[no-untyped-call]


def of(stack: Stack, role: str) -> Process:
    """Return a stack's process of a role."""
    return stack.apis[0] if role == "api" else stack.flushers[0]


def test_openmetrics_for_who_accepts_it_with_units(contract: Stack, role: str) -> None:
    accept = {"accept": f"{OPENMETRICS};version=1.0.0,text/plain;version=0.0.4;q=0.5"}
    answer = fetch(of(contract, role).scrape_port, "/metrics", headers=accept)
    assert answer.headers["content-type"].startswith(f"{OPENMETRICS}; version=1.0.0")
    units = {each.name: each.unit for each in openmetrics(answer.body.decode())}
    wanted = {row.name: row.unit for row in ROWS[role]}
    assert units == wanted


def test_text_for_all_others_and_promtool_has_nothing_to_say(contract: Stack, role: str) -> None:
    answer = fetch(of(contract, role).scrape_port, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    said = check(answer.body)
    assert (said.returncode, said.stdout + said.stderr) == (0, b"")


def check(text: bytes) -> subprocess.CompletedProcess[bytes]:
    """Ask promtool what it thinks of an exposition."""
    return subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, check=False, timeout=20
    )


def test_promtool_would_say_so() -> None:
    said = check(b"# HELP a_milliseconds A.\n# TYPE a_milliseconds counter\na_milliseconds 1\n")
    assert said.returncode
    assert b"a_milliseconds" in said.stdout + said.stderr


def test_both_formats_have_the_same_buckets(contract: Stack, role: str) -> None:
    process = of(contract, role)
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
            openmetrics(other),
        )
    ]
    assert bounds[0] == bounds[1]
    if role == "api":
        assert ("busyapi_request_seconds", "0.05") in bounds[0]


def test_what_alerts_count_is_there_before_it_happens(contract: Stack, beside: Apis) -> None:
    fresh = beside()
    for row in (metric_defs_api.REFUSED, metric_defs_api.COMMITTER_FAILURES):
        (label,) = row.labels
        assert {each[label.name] for each, _ in samples(fresh, row.sample_name)} == {*label.values}
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
    """Its commit is under way for longer than a stop may take."""
    with Proxy(valkey.port) as proxy:
        settings = {
            "BUSYAPI_REDIS_URL": proxy.url,
            "BUSYAPI_COMMIT_DEADLINE": "60",
            "BUSYAPI_STOP_TIMEOUT": "3",
        }
        api = stacks(valkey, settings=settings).apis[0]
        counts: list[float] = []
        watching = Thread(target=watch, args=(api, counts))
        with RawConnection(api.port) as fast, RawConnection(api.port) as ordinary:
            proxy.mute()
            fast.send(render_request("POST", "/api/usages", BODY))
            ordinary.send(
                render_request("POST", "/api/usages", BODY, headers=("Idempotency-Key: cut",))
            )
            wait_until(lambda: api.read_metric("busyapi_pending_usages") == 2, "both to be taken")
            watching.start()
            api.terminate()
            assert api.wait(20) == 0
        watching.join(10)
    assert counts[-1] == 2


def watch(api: Process, counts: list[float]) -> None:
    """Write down how many failed, as often as the process says it, until it has ended."""
    while api.is_running:
        with suppress(OSError, EOFError):
            counts.append(api.read_metric("busyapi_requests_total", status="500"))
        time.sleep(0.05)
