"""A replica that confirms usages before they are on its disk, and the loss of all other servers.

kill -9 loses nothing that was written, so the replica has a disk that forgets what is not synced.
Valkey's WAITAOF is no protection: while an fsync takes long, it confirms what is not synced.
"""

import time
from pathlib import Path

import pytest

from testkit import mutants
from testkit.broken_build import broken_build
from testkit.checker import Defect, Verdict
from testkit.forgetful_disk import ForgetfulDisk
from testkit.replicated import STEP_SECONDS, ReplicatedStack, lose, return_to
from testkit.servers import FLAVOURS, Flavour

NOTICE_SECONDS = 12
"""More than the flusher and the committers together take to notice a changed setting."""
UNSYNCED_SECONDS = 6
"""More than a write waits for its turn, and then for a sync, under `everysec` on the slow disk. So
what was archived before is synced: a failover refuses a server that lacks archived usages."""


def lose_all_but_an_unsynced_replica(
    folder: Path, flavour: Flavour, build: dict[str, str]
) -> tuple[int, Verdict]:
    """Weaken a replica, and cut the power after some seconds; the others lose their volumes.

    Return how many requests were acknowledged in the last seconds, and the verdict.
    """
    # The bound is not reached while the flusher is paused.
    replicated = ReplicatedStack(folder, flavour, build | {"BUSYAPI_BOUND": "1000000"})
    old, unsynced, other = replicated.sentinels.servers
    disk = ForgetfulDisk(unsynced)
    with replicated.running():
        (flusher,) = replicated.stack.flushers
        with replicated.posting():
            disk.slow_down()
            unsynced.client().config_set("appendfsync", "everysec")
            time.sleep(NOTICE_SECONDS)
            flusher.pause()  # what it has archived is not lost
            before = replicated.history.acknowledged
            time.sleep(UNSYNCED_SECONDS)
            acknowledged = replicated.history.acknowledged - before
            disk.cut_power()
            lose(other)
            lose(old)
            unsynced.spawn()
            flusher.resume()
            new = replicated.sentinels.wait_for_failover(old, STEP_SECONDS)
            assert new is unsynced
            for server in (old, other):
                return_to(server, new)
            replicated.wait_for_holders()
            replicated.wait_for_usages()
        return acknowledged, replicated.finish()


@pytest.mark.faults
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_usage_that_a_replica_has_not_synced_is_not_acknowledged(
    tmp_path: Path, flavour: Flavour
) -> None:
    acknowledged, verdict = lose_all_but_an_unsynced_replica(tmp_path, flavour, {})
    assert acknowledged == 0
    assert verdict.ok, verdict


@pytest.mark.mutants
def test_build_that_accepts_unsynced_replicas_is_caught(tmp_path: Path) -> None:
    build = broken_build(mutants.accept_weak_replicas)
    # WAIT confirms what is received. Valkey's WAITAOF confirms what is not synced only at times.
    acknowledged, verdict = lose_all_but_an_unsynced_replica(tmp_path, "redis", build)
    assert acknowledged > 0
    assert Defect.MISSING in verdict.defects, verdict
