"""Metrics count exactly what happened."""

import time
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from busyapi.telemetry.metrics import ApiMetrics, FlusherMetrics, Metrics
from testkit.api_client import BODY, USAGE, RawConnection, render_request, send
from testkit.http1 import fetch
from testkit.processes import Process, Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks
from tests.service.conftest import StartApi

USAGES, BATCHES, ONE = "/api/usages", "/api/usages/batch", "/api/usages/<usage:int>"


def samples(process: Process, name: str) -> list[tuple[dict[str, str], float]]:
    """Return the samples of one name with their labels."""
    text = fetch(process.scrape_port, "/metrics").body.decode()
    families = text_string_to_metric_families(text)
    return [
        (sample.labels, sample.value)
        for family in families
        for sample in family.samples
        if sample.name == name
    ]


def requests(process: Process) -> Counter[tuple[str, int]]:
    """Return the counts of answers by route and status, without probes and zeros."""
    return Counter(
        {
            (labels["route"], int(labels["status"])): int(value)
            for labels, value in samples(process, "busyapi_requests_total")
            if labels["route"] != "/readyz" and value
        }
    )


def test_requests_are_counted_by_route_and_status(contract: Stack, start_api: StartApi) -> None:
    api = start_api()
    assert not requests(api)
    sent: Counter[tuple[str, int]] = Counter()

    def post(body: object, path: str, status: int, **headers: str) -> None:
        assert send(api.port, body, path, **headers).status == status
        sent[path.rstrip("/") if path != "/nowhere" else "none", status] += 1

    for _ in range(5):
        post(USAGE, USAGES, 201)
    post(USAGE, "/api/usages/", 201)
    for size in (1, 10, 100):
        post([USAGE] * size, BATCHES, 201)
    for _ in range(2):
        post(USAGE, USAGES, 201, idempotency_key="metrics")
    post({}, USAGES, 422)
    post(b"{", USAGES, 400)
    post(b"<", USAGES, 415, content_type="text/plain")
    post([{}], BATCHES, 422)
    post({}, "/nowhere", 404)
    for path, route, status in (
        ("/api/usages/1", ONE, 200),
        ("/api/usages/999999999", ONE, 404),
        ("/api/usages/count", "/api/usages/count", 200),
        ("/", "/", 200),
        ("/livez", "/livez", 200),
        ("/openapi.json", "/openapi.json", 200),
        ("/api/usages", "/api/usages?patientId", 422),
        ("/api/usages/batch", "none", 405),
        ("/nowhere/1", "none", 404),
        ("/nowhere/2?x=y", "none", 404),
    ):
        assert fetch(api.port, path).status == status
        sent[route, status] += 1
    with RawConnection(api.port) as device:
        device.send(b"BROKEN\r\n\r\n")
        assert device.read_answer().status == 400
        sent["none", 400] += 1
    assert requests(api) == sent
    timed = {
        labels["route"]: value
        for labels, value in samples(api, "busyapi_request_seconds_count")
        if labels["route"] != "/readyz"
    }
    by_route: Counter[str] = Counter()
    for (route, _), times in sent.items():
        by_route[route] += times
    assert timed == by_route

    # 6 singles, 3 batches, and one of the two with the same key.
    assert api.read_metric("busyapi_usages_total") == 6 + 111 + 1
    assert api.read_metric("busyapi_batch_usages_sum") == 6 + 111 + 1
    # No two requests overlapped, so each was a commit of its own.
    assert api.read_metric("busyapi_batch_usages_count") == 6 + 3 + 1
    buckets = {labels["le"]: value for labels, value in samples(api, "busyapi_batch_usages_bucket")}
    assert (buckets["1.0"], buckets["10.0"], buckets["100.0"], buckets["+Inf"]) == (8, 9, 10, 10)
    assert api.read_metric("busyapi_commit_seconds_count") == 11
    assert api.read_metric("busyapi_pending_usages") == 0
    assert api.read_metric("busyapi_committers_ready") == 1
    assert api.read_metric("busyapi_refused_total") == 0
    assert contract.apis[0].read_metric("busyapi_build_info", role="api") == 1


def test_the_time_of_a_request_counts_from_its_last_byte(start_api: StartApi) -> None:
    """The latency objective does not cover a device's slow network."""
    api = start_api(BUSYAPI_REQUEST_DEADLINE="4")
    with RawConnection(api.port) as slow, RawConnection(api.port) as slower:
        slow.send(render_request("POST", USAGES, BODY)[:-1])
        slower.send(render_request("POST", USAGES, BODY)[:-1])
        time.sleep(2)
        slow.send(BODY[-1:])
        assert slow.read_answer().status == 201
        assert slower.read_answer().status == 408
    assert api.read_metric("busyapi_request_seconds_count", route=USAGES) == 2
    assert api.read_metric("busyapi_request_seconds_sum", route=USAGES) < 2


def test_a_refusal_and_a_lost_connection_are_counted_by_reason(
    stacks: Stacks, valkey: Server
) -> None:
    settings = {"BUSYAPI_BOUND": "10"}
    stack = stacks(valkey, settings=settings)
    api, flusher = stack.apis[0], stack.flushers[0]
    assert flusher.stop() == 0
    statuses = [send(stack.port, USAGE).status for _ in range(14)]
    assert statuses == [201] * 10 + [503] * 4
    assert api.read_metric("busyapi_refused_total", reason="BufferFull") == 4
    assert requests(api) == {(USAGES, 201): 10, (USAGES, 503): 4}
    flusher.start()
    wait_until(lambda: flusher.read_metric("busyapi_archived_seq") == 10, "the archive to catch up")
    assert flusher.read_metric("busyapi_issued_seq") == 10
    assert flusher.read_metric("busyapi_bound_usages") == 10
    assert flusher.read_metric("busyapi_flush_usages_sum") == 10
    flushes = flusher.read_metric("busyapi_flush_usages_count")
    assert flushes >= 1
    for name in ("flush_seconds", "fsync_seconds"):
        assert flusher.read_metric(f"busyapi_{name}_count") == flushes
    written = sum(path.stat().st_size for path in stack.archive.rglob("*.ndjson.zst*"))
    assert 0 < flusher.read_metric("busyapi_archive_written_bytes_total") <= written
    assert flusher.read_metric("busyapi_segment_bytes") > 0
    free, size = (flusher.read_metric(f"busyapi_archive_{name}_bytes") for name in ("free", "size"))
    assert 0 < free < size
    assert flusher.read_metric("busyapi_redis_memory_bytes") > 0
    assert flusher.read_metric("busyapi_redis_memory_max_bytes") == 0
    assert flusher.read_metric("busyapi_archive_damaged_files") == 0
    for stage in ("read", "write", "fsync", "publish"):
        assert flusher.read_metric("busyapi_flush_stage_seconds_total", stage=stage) > 0
    assert api.read_metric("busyapi_committed_seq", partition="0") == 10
    age = "busyapi_oldest_unarchived_seconds"
    wait_until(lambda: flusher.read_metric(age) == 0, "the flusher to have checked")
    assert flusher.read_metric("busyapi_flusher_ready") == 1
    assert flusher.read_metric("busyapi_halted") == 0
    lost = api.read_metric("busyapi_committer_failures_total", reason="RedisUnavailable")
    valkey.kill9()
    wait_until(
        lambda: api.read_metric("busyapi_committers_ready") == 0,
        "the committer to see that Redis died",
    )
    assert api.read_metric("busyapi_committer_failures_total", reason="RedisUnavailable") > lost
    wait_until(
        lambda: flusher.read_metric("busyapi_flusher_ready") == 0, "the flusher to see it too"
    )
    # No usage waits, but the flusher cannot know that without Redis.
    wait_until(lambda: flusher.read_metric(age) > 3, "the age to grow while Redis is down")


def family_names(metrics: Metrics) -> set[str]:
    """Return the families of a registry."""
    return {family.name for family in metrics.registry.collect()}


@pytest.mark.parametrize("role", ["api", "flusher"])
def test_a_process_exports_exactly_the_defined_metric_families(contract: Stack, role: str) -> None:
    assert send(contract.port, BODY).status == 201
    process, defined = {
        "api": (contract.apis[0], ApiMetrics("fsync")),
        "flusher": (contract.flushers[0], FlusherMetrics("fsync")),
    }[role]
    text = fetch(process.scrape_port, "/metrics").body.decode()
    exported = {family.name for family in text_string_to_metric_families(text)}
    assert exported == family_names(defined)


def test_metrics_are_not_on_the_public_port(contract: Stack) -> None:
    with RawConnection(contract.port) as device:
        device.send(render_request("GET", "/metrics"))
        assert device.read_answer().status == 404
