"""Faults of the flusher and its disk make the alerts fire that are about them, and end them.

One stack for all, one fault after the other: each test leaves it as it was.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from busyapi.failpoints import VARIABLE
from busyapi.stream.keys import Keys
from testkit.api_client import USAGE, send, stored
from testkit.docs.runbooks import pages
from testkit.monitored_stack import MonitoredStack, observed
from testkit.volume import fill_volume
from testkit.waiting import wait_until

BOUND = "4000"
RESERVE = 3 << 20
KEYS = Keys(0)
READ = {"BufferFilling", "BufferFull", "RedisMemoryHigh", "ArchiveFsyncSlow", "FlusherStuck"}
"""Runbooks that are read while the flusher is away."""
ITS_OWN = "busyapi_issued_seq - busyapi_archived_seq"
"""A backlog that nobody but the flusher tells of."""


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, rules: Mapping[str, Any]
) -> Iterator[MonitoredStack]:
    """A stack whose buffer is soon full."""
    folder = tmp_path_factory.mktemp("faults")
    with observed(folder, rules, BUSYAPI_BOUND=BOUND, BUSYAPI_SEGMENT_AGE="5") as site:
        reserve(site.stack.archive).write_bytes(bytes(RESERVE))
        yield site


def reserve(archive: Path) -> Path:
    """Return the file that a person deletes for space."""
    return archive / "reserve"


def restarted(site: MonitoredStack, failpoints: str) -> None:
    """Start the flusher anew with these failpoints."""
    site.flusher.stop()
    site.flusher.environment[VARIABLE] = failpoints
    site.flusher.spawn()


def segments(site: MonitoredStack) -> Iterator[Path]:
    """List the finished segments."""
    return site.stack.archive.rglob("usages-*.zst")


def test_a_flusher_that_hangs(site: MonitoredStack) -> None:
    alerts = (
        "BusyapiFlusherStuck",
        "BusyapiArchivingBurn/1h",
        "BusyapiBufferFilling",
        "BusyapiBufferFull",
        "BusyapiAvailabilityBurn/1h",
        "BusyapiTargetsMissing",
    )
    with site.load(batch=20):
        wait_until(
            lambda: site.flusher.metric("busyapi_archived_seq") > 0, "the first flush", seconds=30
        )
        with site.fault(*alerts):
            site.flusher.pause()
        site.flusher.resume()
        site.prometheus.wait_until_resolved(*alerts)


def test_runbooks_ask_for_what_is_known_while_the_flusher_is_away(site: MonitoredStack) -> None:
    read = [each for each in pages() if each.name.removeprefix("Busyapi") in READ]
    unanswered = {query.text for page in read for query in page.of("promql")}
    assert len(read) == len(READ)

    def answered() -> bool:
        stored(send(site.stack.port, USAGE))
        unanswered.difference_update([q for q in unanswered if site.prometheus.query(q)])
        return not unanswered

    wait_until(lambda: site.prometheus.query(ITS_OWN), "a scrape", seconds=30)
    site.flusher.pause()
    try:
        wait_until(lambda: not site.prometheus.query(ITS_OWN), "a scrape that fails", seconds=30)
        with suppress(TimeoutError):
            wait_until(answered, "answers", seconds=60, every=0.2)
        assert not unanswered
        assert not site.prometheus.query(ITS_OWN)
    finally:
        site.flusher.resume()
    site.stack.wait_until_archived()


def test_a_volume_that_fills(site: MonitoredStack) -> None:
    """The tests before it have written; an hour, by which nothing is predicted, is over."""
    with ExitStack() as posting, site.fault("BusyapiArchiveDiskFilling", seconds=60):
        posting.enter_context(site.load(batch=20, rest=0))
    reserve(site.stack.archive).unlink()
    site.prometheus.wait_until_resolved("BusyapiArchiveDiskFilling")


def test_a_full_volume(site: MonitoredStack) -> None:
    with site.load():
        with site.fault("BusyapiArchiveDiskFull"):
            ballast = fill_volume(site.stack.archive)
        ballast.unlink()
        site.prometheus.wait_until_resolved("BusyapiArchiveDiskFull")


def test_a_failed_fsync_is_told_although_the_process_ends(site: MonitoredStack) -> None:
    with site.load():
        with site.fault("BusyapiArchiveWriteFailing"):
            restarted(site, "archive-sync=eio@3")
        assert site.flusher.wait(30) == 1
        site.flusher.environment[VARIABLE] = ""
        site.flusher.spawn()
        site.prometheus.wait_until_resolved("BusyapiArchiveWriteFailing")


def test_a_slow_fsync(site: MonitoredStack) -> None:
    with site.load():
        with site.fault("BusyapiArchiveFsyncSlow"):
            restarted(site, "archive-sync=sleep:0.8")
        restarted(site, "")
        site.prometheus.wait_until_resolved("BusyapiArchiveFsyncSlow")


def test_an_entry_that_nobody_can_read(site: MonitoredStack) -> None:
    with site.fault("BusyapiUsagesQuarantined"):
        last = int(site.server.command("INCRBY", KEYS.seq, 1))
        site.server.client().xadd(KEYS.stream, {"u": b"no entry of ours"}, id=f"{last}-1")
    site.prometheus.wait_until_resolved("BusyapiUsagesQuarantined", seconds=40)


def test_a_damaged_segment(site: MonitoredStack) -> None:
    alerts = ("BusyapiArchiveDamaged", "BusyapiFlusherHalted", "BusyapiPartitionNotSeeded")
    site.stack.wait_until_archived()
    site.flusher.stop()
    files = set(segments(site))
    with site.fault(*alerts):
        segment = max(files)
        content = segment.read_bytes()
        segment.write_bytes(content[: len(content) // 3] + b"?" + content[len(content) // 3 + 1 :])
        site.flusher.spawn()
    site.flusher.stop()
    # What recovery set aside and what it saved of it go, and the right one comes back.
    for each in {*segments(site), *site.stack.archive.rglob("*.damaged")} - files:
        each.unlink()
    segment.write_bytes(content)
    site.flusher.start()
    site.prometheus.wait_until_resolved(*alerts)
