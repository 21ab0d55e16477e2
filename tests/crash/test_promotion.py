"""Promote a replica that lacks the tail: no id comes twice, and nothing a replica had is lost.

A proxy that stops forwarding keeps the replica behind. The flusher is suspended while the replica
is promoted, and the API is a new process that has received no id: only the check of the server's
run_id keeps it from issuing the ids of the lost tail again.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from testkit import mutants
from testkit.archive_reader import read_archive
from testkit.broken_build import broken_build
from testkit.checker import Defect, Verdict
from testkit.load import Load
from testkit.processes import Stack, answers_ok
from testkit.proxy import Proxy
from testkit.replicated import UNPROMOTABLE
from testkit.servers import Server
from testkit.waiting import wait_until


def wait_for_more_usages(load: Load) -> None:
    """Wait for ten more usages, or two seconds.

    The replicated tier acknowledges no usage while its replica is cut off.
    """
    before = load.history.acknowledged
    with suppress(TimeoutError):
        wait_until(lambda: load.history.acknowledged >= before + 10, "usages", seconds=2)


class Promotion:
    """A primary, its replica through a proxy, and a replica of that replica."""

    def __init__(self, folder: Path, tier: str, build: dict[str, str]) -> None:
        self.primary = Server(folder / "primary", config=UNPROMOTABLE)
        self.replica = Server(folder / "replica", config=UNPROMOTABLE, replica_of=self.primary)
        # It follows the replica, so after the promotion the tier has a replica again.
        self.second = Server(folder / "second", config=UNPROMOTABLE, replica_of=self.replica)
        self.link = Proxy(self.primary.port)
        self.front = Proxy(self.primary.port)
        settings = {
            "BUSYAPI_REDIS_URL": self.front.url,
            "BUSYAPI_DURABILITY": tier,
            "BUSYAPI_COMMIT_DEADLINE": "1.5",
            "BUSYAPI_BOUND": "100000",
        }
        self.stack = Stack(folder / "stack", self.primary, settings=settings | build)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start all processes."""
        with ExitStack() as running:
            for part in (self.primary, self.replica, self.link, self.front):
                running.enter_context(part)
            self.replica.command("REPLICAOF", "127.0.0.1", self.link.port)
            running.enter_context(self.second)
            wait_until(
                lambda: self.replica.replication()["master_link_status"] == "up",
                "the replica to follow through the proxy",
            )
            running.enter_context(self.stack)
            yield

    def run(self, *, to_the_end: bool = True) -> Verdict:
        """Post before the replica falls behind, before it is promoted, and after."""
        with self.running():
            with Load(self.stack.port, connections=4, timeout=8) as load:
                wait_until(lambda: load.history.acknowledged > 50, "usages")
                self.link.mute()
                wait_for_more_usages(load)
                self.stack.flushers[0].pause()
                wait_for_more_usages(load)
                self._promote()
                before = load.history.acknowledged
                self.stack.apis[0].spawn()
                wait_until(
                    lambda: answers_ok(self.stack.port, "/livez"), "it to listen", seconds=30
                )
                time.sleep(1.5)
                self.acknowledged_unseeded = load.history.acknowledged - before
                if to_the_end:
                    self.stack.flushers[0].resume()
                    self.stack.flushers[0].wait_until_ready()
                    after = load.history.acknowledged
                    wait_until(lambda: load.history.acknowledged > after + 50, "usages", seconds=20)
                else:
                    wait_until(lambda: load.history.acknowledged > before, "a usage", seconds=20)
            if to_the_end:
                self.stack.wait_until_archived()
                self.stack.stop()
        return self.stack.check_history(load.history)

    def _promote(self) -> None:
        """Replace the primary by the replica while the flusher is suspended and no API runs."""
        self.stack.apis[0].kill9()
        self.primary.kill9()
        self.replica.command("REPLICAOF", "NO", "ONE")
        self.front.target = self.replica.port

    def gaps(self) -> int:
        return len(read_archive(self.stack.archive).partition(0).gaps)


def test_promoted_replica_without_the_tail_repeats_no_id(tmp_path: Path) -> None:
    promotion = Promotion(tmp_path, "fsync", {})
    verdict = promotion.run()
    # What only the dead primary had is lost, as this tier allows; its ids are not issued again.
    assert set(verdict.defects) == {Defect.MISSING}, verdict
    assert promotion.acknowledged_unseeded == 0
    assert promotion.gaps() == 1
    assert verdict.skipped > 100_000


@pytest.mark.mutants
def test_build_without_the_check_of_the_run_id_is_caught(tmp_path: Path) -> None:
    # Two checks protect, and each is enough: that of a connection, and that of each commit.
    build = broken_build(mutants.commit_on_any_server)
    # What the flusher does afterwards does not matter here.
    verdict = Promotion(tmp_path, "fsync", build).run(to_the_end=False)
    assert Defect.ID_ANSWERED_TWICE in verdict.defects, verdict


def test_replicated_tier_loses_nothing_when_a_replica_is_promoted(tmp_path: Path) -> None:
    promotion = Promotion(tmp_path, "replicated", {})
    verdict = promotion.run()
    assert verdict.ok, verdict
    assert promotion.gaps() == 0  # the replica has every id that was acknowledged


@pytest.mark.mutants
def test_build_that_does_not_wait_for_a_replica_is_caught(tmp_path: Path) -> None:
    build = broken_build(mutants.wait_for_no_replica)
    verdict = Promotion(tmp_path, "replicated", build).run()
    # Ids continue behind what the replica has: those that it lacks are used again.
    assert Defect.ID_ANSWERED_TWICE in verdict.defects, verdict
