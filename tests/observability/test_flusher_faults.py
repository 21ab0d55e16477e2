"""Faults of the flusher and its disk fire their alerts, and repairs resolve them.

All tests share one stack. Each test causes a fault and repairs it.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from busyapi.audit.record import encode_entry
from busyapi.failpoints import VARIABLE
from busyapi.stream.keys import PartitionKeys
from testkit.api_client import USAGE, check_stored, send
from testkit.archive.builder import find_segments
from testkit.audit import make_entry
from testkit.docs.runbooks import pages
from testkit.http1 import fetch
from testkit.monitored_stack import MonitoredStack, run_monitored_stack
from testkit.prometheus import NAMESPACE
from testkit.verification import pause_verification
from testkit.volume import fill_volume
from testkit.waiting import wait_until

BOUND = "4000"
RESERVE = 3 << 20
VERIFY_INTERVAL = "BUSYAPI_VERIFY_INTERVAL"
KEYS = PartitionKeys(0)
READ_WITHOUT_FLUSHER = {
    "BufferFilling",
    "BufferFull",
    "RedisMemoryHigh",
    "ArchiveFsyncSlow",
    "FlusherStuck",
}
"""Runbooks that are used while the flusher is down."""
FLUSHER_QUERY = "busyapi_issued_seq - busyapi_archived_seq"
"""The backlog by metrics of the flusher alone."""


@pytest.fixture(scope="module")
def monitored(
    tmp_path_factory: pytest.TempPathFactory, rules: Mapping[str, Any]
) -> Iterator[MonitoredStack]:
    """Run a stack with a small buffer."""
    folder = tmp_path_factory.mktemp("faults")
    with run_monitored_stack(
        folder, rules, BUSYAPI_BOUND=BOUND, BUSYAPI_SEGMENT_AGE="5"
    ) as monitored:
        reserve(monitored.stack.archive).write_bytes(bytes(RESERVE))
        yield monitored


def reserve(archive: Path) -> Path:
    """Return the path of the file that a test deletes to free space."""
    return archive / "reserve"


def restart(monitored: MonitoredStack, failpoints: str) -> None:
    """Restart the flusher with these failpoints."""
    monitored.flusher.stop()
    monitored.flusher.environment[VARIABLE] = failpoints
    monitored.flusher.spawn()


def segments(monitored: MonitoredStack) -> list[Path]:
    """Yield the finished segments."""
    return find_segments(monitored.stack.archive)


def test_hanging_flusher_fires_alerts(monitored: MonitoredStack) -> None:
    alerts = (
        "BusyapiFlusherStuck",
        "BusyapiArchivingBurn/1h",
        "BusyapiBufferFilling",
        "BusyapiBufferFull",
        "BusyapiAvailabilityBurn/1h",
        "BusyapiTargetsMissing",
    )
    with monitored.load(batch=20):
        wait_until(
            lambda: monitored.flusher.read_metric("busyapi_archived_seq") > 0,
            "the first flush",
            seconds=30,
        )
        with monitored.fault(*alerts):
            monitored.flusher.pause()
        monitored.flusher.resume()
        monitored.prometheus.wait_until_resolved(*alerts)


def test_queries_of_runbooks_work_while_the_flusher_is_down(monitored: MonitoredStack) -> None:
    runbooks = [
        page for page in pages() if page.name.removeprefix("Busyapi") in READ_WITHOUT_FLUSHER
    ]
    unanswered = {
        query.text.replace('namespace="busyapi"', f'namespace="{NAMESPACE}"')
        for page in runbooks
        for query in page.of("promql")
    }
    assert len(runbooks) == len(READ_WITHOUT_FLUSHER)

    def all_answered() -> bool:
        check_stored(send(monitored.stack.port, USAGE))
        unanswered.difference_update([q for q in unanswered if monitored.prometheus.query(q)])
        return not unanswered

    wait_until(lambda: monitored.prometheus.query(FLUSHER_QUERY), "a scrape", seconds=30)
    monitored.flusher.pause()
    try:
        wait_until(
            lambda: not monitored.prometheus.query(FLUSHER_QUERY), "a scrape that fails", seconds=30
        )
        with suppress(TimeoutError):
            wait_until(all_answered, "answers", seconds=60, every=0.2)
        assert not unanswered
        assert not monitored.prometheus.query(FLUSHER_QUERY)
    finally:
        monitored.flusher.resume()
    monitored.stack.wait_until_archived()


def test_filling_volume_fires_an_alert(monitored: MonitoredStack) -> None:
    """Earlier tests have written for more than the scaled hour that a prediction needs."""
    with ExitStack() as posting, monitored.fault("BusyapiArchiveDiskFilling", seconds=60):
        posting.enter_context(monitored.load(batch=20, pause_after_201=0))
    reserve(monitored.stack.archive).unlink()
    monitored.prometheus.wait_until_resolved("BusyapiArchiveDiskFilling")


def test_full_volume_fires_an_alert(monitored: MonitoredStack) -> None:
    with monitored.load():
        with monitored.fault("BusyapiArchiveDiskFull"):
            ballast = fill_volume(monitored.stack.archive)
        ballast.unlink()
        monitored.prometheus.wait_until_resolved("BusyapiArchiveDiskFull")


def test_failed_fsync_fires_an_alert_although_the_process_ends(monitored: MonitoredStack) -> None:
    with monitored.load():
        with monitored.fault("BusyapiArchiveWriteFailing"):
            restart(monitored, "archive-sync=eio@3")
        assert monitored.flusher.wait(30) == 1
        monitored.flusher.environment[VARIABLE] = ""
        monitored.flusher.spawn()
        monitored.prometheus.wait_until_resolved("BusyapiArchiveWriteFailing")


def test_slow_fsync_fires_an_alert(monitored: MonitoredStack) -> None:
    with monitored.load():
        with monitored.fault("BusyapiArchiveFsyncSlow"):
            restart(monitored, "archive-sync=sleep:0.8")
        restart(monitored, "")
        monitored.prometheus.wait_until_resolved("BusyapiArchiveFsyncSlow")


def test_failing_audit_trail_fires_an_alert(monitored: MonitoredStack) -> None:
    restart(monitored, "audit-before-write=eio")
    monitored.flusher.wait_until_ready()
    body = encode_entry(make_entry())
    with monitored.fault("BusyapiAuditFailing"):
        answer = fetch(monitored.flusher.archive_port, "/audit", method="POST", body=body)
        assert answer.status == 503
    restart(monitored, "")
    monitored.prometheus.wait_until_resolved("BusyapiAuditFailing")


def test_quarantined_entry_fires_an_alert(monitored: MonitoredStack) -> None:
    with monitored.fault("BusyapiUsagesQuarantined"):
        last = int(monitored.server.command("INCRBY", KEYS.seq, 1))
        monitored.server.client().xadd(
            KEYS.stream, {"u": b"not an entry of busyapi"}, id=f"{last}-1"
        )
    monitored.prometheus.wait_until_resolved("BusyapiUsagesQuarantined", seconds=40)


def test_hanging_verification_fires_an_alert(monitored: MonitoredStack) -> None:
    monitored.flusher.environment[VERIFY_INTERVAL] = "5"
    restart(monitored, "")
    with pause_verification(monitored.flusher), monitored.fault("BusyapiArchiveNotVerified"):
        pass
    monitored.prometheus.wait_until_resolved("BusyapiArchiveNotVerified")
    del monitored.flusher.environment[VERIFY_INTERVAL]
    restart(monitored, "")


def test_damage_that_only_a_verification_meets_fires_an_alert(monitored: MonitoredStack) -> None:
    monitored.stack.wait_until_archived()
    monitored.flusher.environment[VERIFY_INTERVAL] = "2"
    restart(monitored, "")
    segment = min(segments(monitored))
    content = segment.read_bytes()
    with monitored.fault("BusyapiArchiveDamaged"):
        segment.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    segment.write_bytes(content)
    monitored.prometheus.wait_until_resolved("BusyapiArchiveDamaged")
    del monitored.flusher.environment[VERIFY_INTERVAL]
    restart(monitored, "")


def test_damaged_segment_fires_alerts(monitored: MonitoredStack) -> None:
    alerts = ("BusyapiArchiveDamaged", "BusyapiFlusherHalted")
    monitored.stack.wait_until_archived()
    monitored.flusher.stop()
    files = set(segments(monitored))
    with monitored.fault(*alerts):
        segment = max(files)
        content = segment.read_bytes()
        segment.write_bytes(content[: len(content) // 3] + b"?" + content[len(content) // 3 + 1 :])
        monitored.flusher.spawn()
    monitored.expect_quiet("BusyapiFlusherNotReady")
    monitored.flusher.stop()
    # Remove the damaged file and what recovery saved of it, and put the original back.
    for path in {*segments(monitored), *monitored.stack.archive.rglob("*.damaged")} - files:
        path.unlink()
    segment.write_bytes(content)
    monitored.flusher.start()
    monitored.prometheus.wait_until_resolved(*alerts)
