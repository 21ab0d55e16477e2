"""Primaries are lost with their volumes where no Sentinel runs: on a cluster, and by hand.

To repeat a failed run, set BUSYAPI_TEST_KILL_SEED to the seed in its message.
"""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from busyapi.archive.holders import read_holders
from testkit import mutants
from testkit.broken_build import broken_build
from testkit.checker import Defect
from testkit.processes import Stack
from testkit.proxy import Proxy
from testkit.replicated import (
    CONFIG,
    SILENCE_SECONDS,
    STEP_SECONDS,
    LoadedStack,
    ReplicaFaults,
    lose,
    return_to,
)
from testkit.rounds import SEED, describe_failure, make_chance, make_rounds
from testkit.servers import FLAVOURS, Flavour, Server
from testkit.topologies import ClusterOfThree
from testkit.waiting import wait_until

SHORT_ROUNDS, FULL_ROUNDS = 3, 20


# --- a cluster promotes by itself -------------------------------------------------------------


FAULTS = ("none", "pause", "cut off", "restart")
"""Of the replica, when its primary is lost."""


class LoadedCluster(LoadedStack):
    """Three primaries with a replica each, and two partitions on them."""

    def __init__(self, folder: Path, flavour: Flavour, build: dict[str, str]) -> None:
        super().__init__(folder, {"BUSYAPI_REPLICAS": "1", **build})
        self.cluster = ClusterOfThree(folder / "c", flavour, config=CONFIG[1:], replicas=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start everything."""
        with self.cluster:
            self._stack = Stack(
                self._folder / "stack", self.cluster, partitions=2, settings=self._settings
            )
            with self._stack:
                yield

    def find_pair(self, partition: int) -> tuple[Server, Server]:
        """Return the primary of a partition, and its replica."""
        primary = self.cluster.primary_of(f"busyapi:{{{partition}}}:state")
        (replica,) = (
            node
            for node in self.cluster.nodes
            if node.replication().get("master_port") == primary.port
        )
        return primary, replica

    def lose_primary(self, partition: int, replica_fault: str) -> None:
        """Lose the primary of a partition during a fault of its replica; wait for a failover."""
        primary, replica = self.find_pair(partition)
        if replica_fault in {"pause", "cut off"}:
            replica.pause()
        if replica_fault == "cut off":
            # Otherwise the kernel keeps for the replica what the primary sends.
            primary.command("CLIENT", "KILL", "TYPE", "replica")
        if replica_fault == "restart":
            replica.kill9()
            replica.spawn()
        time.sleep(1)
        for flusher in self.stack.flushers:
            flusher.pause()  # what is acknowledged now is in no archive when the primary is lost
        time.sleep(0.5)
        lose(primary)
        for process in (replica, *self.stack.flushers):
            process.resume()
        wait_until(partial(is_primary, replica), f"{replica} to be promoted", seconds=STEP_SECONDS)
        primary.start()
        self.cluster.wait_until_complete(STEP_SECONDS)
        for flusher in self.stack.flushers:
            flusher.wait_until_ready(STEP_SECONDS)
        self.wait_for_usages()


def is_primary(server: Server) -> bool:
    """Return whether a server that may still load its data is a primary."""
    return server.check_alive() and server.replication()["role"] == "master"


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("rounds", make_rounds(SHORT_ROUNDS, FULL_ROUNDS))
def test_nothing_is_lost_when_primaries_of_a_cluster_are(
    tmp_path: Path, flavour: Flavour, rounds: int
) -> None:
    chance = make_chance()
    loaded = LoadedCluster(tmp_path, flavour, {})
    with loaded.running():
        with loaded.posting():
            for number in range(rounds):
                partition, fault = chance.randrange(2), chance.choice(FAULTS)
                with describe_failure(f"round {number}, partition {partition}, {fault}"):
                    loaded.lose_primary(partition, fault)
        verdict = loaded.finish()
    assert verdict.ok, f"BUSYAPI_TEST_KILL_SEED={SEED}\n{verdict}"


@pytest.mark.mutants
def test_build_that_waits_for_no_replica_on_a_cluster_is_caught(tmp_path: Path) -> None:
    loaded = LoadedCluster(tmp_path, "valkey", broken_build(mutants.wait_for_no_replica))
    with loaded.running():
        with loaded.posting():
            loaded.lose_primary(0, "cut off")
        verdict = loaded.finish()
    assert Defect.MISSING in verdict.defects, verdict


# --- an operator promotes a holder ------------------------------------------------------------


class LoadedTrio(LoadedStack):
    """A primary at an address that stays, and two replicas, without Sentinels."""

    def __init__(self, folder: Path, flavour: Flavour) -> None:
        super().__init__(folder, {})
        self.front = Proxy(0)
        self.primary = Server(folder / "0", flavour, config=CONFIG)
        self.replicas = [
            Server(folder / str(n), flavour, config=CONFIG, replica_of=self.primary) for n in (1, 2)
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start everything."""
        self.front.target = self.primary.port
        url = {"BUSYAPI_REDIS_URL": self.front.url}
        with ExitStack() as parts:
            for part in (self.primary, *self.replicas, self.front):
                parts.enter_context(part)
            stack = Stack(self._folder / "stack", self.primary, settings=self._settings | url)
            self._stack = parts.enter_context(stack)
            self.wait_for_holders()
            yield

    def holders(self) -> list[Server]:
        """Return the replicas that the archive names."""
        named = read_holders(self.stack.archive / "p00").addresses
        return [server for server in self.replicas if f"127.0.0.1:{server.port}" in named]

    def wait_for_holders(self) -> None:
        """Wait until both replicas hold everything."""
        (flusher,) = self.stack.flushers
        wait_until(
            lambda: flusher.is_ready() and len(self.holders()) == len(self.replicas),
            "both replicas to hold everything",
            seconds=STEP_SECONDS,
        )

    def promote(self, new: Server) -> None:
        """Promote a holder, as an operator does."""
        old = self.primary
        (other,) = (server for server in self.replicas if server is not new)
        new.command("REPLICAOF", "NO", "ONE")
        other.command("REPLICAOF", "127.0.0.1", new.port)
        self.primary, self.replicas = new, [other, old]
        self.front.target = new.port
        self.front.reset()


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("rounds", make_rounds(SHORT_ROUNDS, FULL_ROUNDS))
def test_nothing_is_lost_when_an_operator_promotes_holders(
    tmp_path: Path, flavour: Flavour, rounds: int
) -> None:
    chance = make_chance()
    loaded = LoadedTrio(tmp_path, flavour)
    with loaded.running():
        with loaded.posting():
            for number in range(rounds):
                with describe_failure(f"round {number}"):
                    promote_after_loss(loaded, chance)
        verdict = loaded.finish()
    assert verdict.ok, f"BUSYAPI_TEST_KILL_SEED={SEED}\n{verdict}"


def promote_after_loss(loaded: LoadedTrio, chance: random.Random) -> None:
    """Lose the primary during a fault of a replica, and promote a holder by hand."""
    old = loaded.primary
    with ExitStack() as running:
        fault = chance.choice(ReplicaFaults(loaded, running).kinds)
        with describe_failure(fault.__name__):
            replica, other = chance.sample(loaded.replicas, 2)
            end_fault = fault(replica, old)
            time.sleep(chance.uniform(0, SILENCE_SECONDS + 2))
            (flusher,) = loaded.stack.flushers
            flusher.pause()
            time.sleep(0.5)
            lose(old)
            flusher.resume()
            end_fault()
            loaded.promote(replica if replica in loaded.holders() else other)
            return_to(old, loaded.primary)
            loaded.wait_for_holders()
            loaded.wait_for_usages()
