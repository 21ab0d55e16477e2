"""Kill the primary and delete its volume in the tier `replicated`: nothing acknowledged is lost.

The first test does so again and again, each time during another fault of a replica. To repeat a
failed run, set BUSYAPI_TEST_KILL_SEED to the seed in its message. The others are scripts with one
outcome, which a build without the protection fails every time.
"""

import random
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from testkit import mutants
from testkit.broken_build import broken_build
from testkit.checker import Defect, Verdict
from testkit.processes import Flusher
from testkit.replicated import (
    SILENCE_SECONDS,
    STEP_SECONDS,
    ReplicaFaults,
    ReplicatedStack,
    lose,
    return_to,
)
from testkit.rounds import SEED, describe_failure, make_chance, make_rounds
from testkit.servers import FLAVOURS, Flavour, Server
from testkit.topologies import SentinelSet

ALONE_SECONDS = 8
"""More than a failover to the only holder takes."""


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("rounds", make_rounds(4, 100))
def test_nothing_is_lost_when_primaries_and_their_volumes_are(
    tmp_path: Path, flavour: Flavour, rounds: int
) -> None:
    chance = make_chance()
    replicated = ReplicatedStack(tmp_path, flavour)
    with replicated.running():
        with replicated.posting():
            for number in range(rounds):
                with describe_failure(f"round {number}"):
                    play_round(replicated, chance)
                    replicated.wait_for_holders()
                    replicated.wait_for_usages()
        verdict = replicated.finish()
    assert verdict.ok, f"BUSYAPI_TEST_KILL_SEED={SEED}\n{verdict}"


def play_round(replicated: ReplicatedStack, chance: random.Random) -> None:
    """Lose the primary at a random moment of a random fault."""
    old = replicated.sentinels.primary()
    replica, other = chance.sample(replicated.replicas(), 2)
    with ExitStack() as running:
        fault = chance.choice(ReplicaFaults(replicated, running).kinds)
        running.enter_context(
            describe_failure(f"{fault.__name__} of {replica}, then the loss of {old}")
        )
        end_fault = fault(replica, old)
        # A silent replica leaves the set in between, or does not.
        time.sleep(chance.uniform(0, SILENCE_SECONDS + 2))
        (flusher,) = replicated.stack.flushers
        if chance.random() < 0.5:
            flusher.pause()  # what is acknowledged now is in no archive when the primary is lost
            time.sleep(0.5)
        lose(old)
        flusher.resume()
        if chance.random() < 0.5:
            end_fault()  # the Sentinels could promote it
            if chance.random() < 0.5:
                wait_without(other, replicated.sentinels, old)
        new = replicated.sentinels.wait_for_failover(old, STEP_SECONDS)
        end_fault()
        return_to(old, new)


def wait_without(other: Server, sentinels: SentinelSet, old: Server) -> None:
    """Let only the replica that had a fault be promoted; if it is no holder, no server is."""
    other.pause()
    with suppress(TimeoutError):
        sentinels.wait_for_failover(old, ALONE_SECONDS)
    other.resume()


# --- scripts, and builds that fail them -----------------------------------------------------


def lose_primary_before_a_replica_confirms(folder: Path, build: dict[str, str]) -> Verdict:
    """Cut a replica off, lose the primary at once, and let only that replica be promoted."""
    replicated = ReplicatedStack(folder, "valkey", build)
    with replicated.running(), ExitStack() as running:
        with replicated.posting():
            old, (behind, other) = replicated.sentinels.primary(), replicated.replicas()
            end_fault = ReplicaFaults(replicated, running).cut_off(behind, old)
            time.sleep(1.5)  # less than the time after which it would leave the set
            lose(old)
            other.pause()
            assert replicated.sentinels.wait_for_failover(old, STEP_SECONDS) is behind
            end_fault()
            other.resume()
            return_to(old, behind)
            replicated.wait_for_holders()
            replicated.wait_for_usages()
        return replicated.finish()


@pytest.mark.faults
def test_usage_that_one_replica_lacks_is_not_acknowledged(tmp_path: Path) -> None:
    verdict = lose_primary_before_a_replica_confirms(tmp_path, {})
    assert verdict.ok, verdict


@pytest.mark.mutants
def test_build_that_waits_for_one_of_two_replicas_is_caught(tmp_path: Path) -> None:
    build = broken_build(mutants.wait_for_one_replica)
    verdict = lose_primary_before_a_replica_confirms(tmp_path, build)
    assert Defect.MISSING in verdict.defects, verdict


def lose_primary_after_a_replica_left(folder: Path, build: dict[str, str]) -> Verdict:
    """Pause a replica until it has left the set; then lose the primary, and pause the other."""
    replicated = ReplicatedStack(folder, "valkey", build)
    with replicated.running():
        with replicated.posting():
            old, (behind, other) = replicated.sentinels.primary(), replicated.replicas()
            behind.pause()
            time.sleep(SILENCE_SECONDS + 1)
            replicated.wait_for_usages(100)
            lose(old)
            other.pause()
            behind.resume()
            time.sleep(5)  # the Sentinels find the primary down and try
            if behind.replication()["role"] == "slave":
                other.resume()
            new = replicated.sentinels.wait_for_failover(old, STEP_SECONDS)
            other.resume()
            return_to(old, new)
            replicated.wait_for_holders()
            replicated.wait_for_usages()
        return replicated.finish()


@pytest.mark.faults
def test_replica_that_left_the_set_is_not_promoted(tmp_path: Path) -> None:
    verdict = lose_primary_after_a_replica_left(tmp_path, {})
    assert verdict.ok, verdict


@pytest.mark.mutants
def test_build_that_ignores_the_set_at_a_failover_is_caught(tmp_path: Path) -> None:
    # The data of a server are a second check: they often show that it is behind.
    build = broken_build(mutants.keep_all_holders, mutants.trust_every_holder)
    verdict = lose_primary_after_a_replica_left(tmp_path, build)
    assert Defect.MISSING in verdict.defects, verdict


# --- servers that are back without their volume ----------------------------------------------


def lose_power(folder: Path, build: dict[str, str]) -> Verdict:
    """Lose the power of all servers: the primary is lost, one replica is back without its volume.

    Both replicas then report the same offset. The empty one answers first.
    """
    replicated = ReplicatedStack(folder, "valkey", build)
    with replicated.running():
        with replicated.posting():
            old, (empty, full) = replicated.sentinels.primary(), replicated.replicas()
            for server in (old, empty, full):
                server.kill9()
            old.wipe()
            empty.wipe()
            empty.spawn()
            time.sleep(8)  # the Sentinels find the primary down
            full.spawn()
            new = replicated.sentinels.wait_for_failover(old, STEP_SECONDS)
            return_to(old, new)
            replicated.wait_for_holders()
            replicated.wait_for_usages()
        return replicated.finish()


@pytest.mark.faults
def test_replica_that_is_back_without_its_volume_is_not_promoted(tmp_path: Path) -> None:
    verdict = lose_power(tmp_path, {})
    assert verdict.ok, verdict


@pytest.mark.mutants
def test_build_that_compares_offsets_only_is_caught(tmp_path: Path) -> None:
    verdict = lose_power(tmp_path, broken_build(mutants.trust_every_holder))
    assert Defect.MISSING in verdict.defects, verdict


# --- the decider dies at each step ------------------------------------------------------------

DECIDER = (
    "holders-before-write=kill",
    "holders-after-write=kill",
    "replicas-before-record=kill",
    "replicas-after-record=kill",
)
FAILOVER = ("failover-after-choice=kill", "failover-after-raise=kill")


@pytest.mark.faults
def test_flusher_that_dies_at_a_step_of_a_decision_loses_nothing(tmp_path: Path) -> None:
    replicated = ReplicatedStack(tmp_path, "valkey")
    with replicated.running():
        (flusher,) = replicated.stack.flushers
        with replicated.posting():
            for spec in DECIDER:
                old = replicated.sentinels.primary()
                restart_with_failpoint(flusher, spec)
                time.sleep(1)
                replica = replicated.replicas()[0]
                replica.kill9()  # it leaves, or joins, and the flusher writes both records
                replica.wipe()
                replica.spawn()
                assert flusher.wait(30) == -9, spec
                lose(old)  # while no flusher runs
                flusher.spawn()
                new = replicated.sentinels.wait_for_failover(old, STEP_SECONDS)
                return_to(old, new)
                replicated.wait_for_holders()
                replicated.wait_for_usages()
            for spec in FAILOVER:
                old = replicated.sentinels.primary()
                restart_with_failpoint(flusher, spec)
                replicated.wait_for_holders()
                lose(old)
                assert flusher.wait(30) == -9, spec
                flusher.spawn()
                new = replicated.sentinels.wait_for_failover(old, STEP_SECONDS)
                return_to(old, new)
                replicated.wait_for_holders()
                replicated.wait_for_usages()
        verdict = replicated.finish()
    assert verdict.ok, verdict


def restart_with_failpoint(flusher: Flusher, spec: str) -> None:
    """Kill a flusher and start it with a failpoint."""
    flusher.kill9()
    flusher.environment["BUSYAPI_FAILPOINTS"] = spec
    flusher.spawn()
    del flusher.environment["BUSYAPI_FAILPOINTS"]
