"""kill -9 of API, flusher, Redis and Sentinels in turn, at random moments, under load.

Acknowledged usages are archived once, refused ones are not, and no id comes twice: the history
checker and `busyapi archive verify` check this afterwards. To repeat a failed run, set
BUSYAPI_TEST_KILL_SEED to the seed in its message.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import pytest
import redis

from testkit.archive.command import run_verify
from testkit.checker import Verdict
from testkit.child_process import Child
from testkit.history import History
from testkit.load import Load
from testkit.processes import Stack
from testkit.replicated import UNPROMOTABLE
from testkit.servers import FLAVOURS, Flavour, Server
from testkit.stamping import StampedClient, configure_stamps
from testkit.topologies import SentinelSet

SHORT_SECONDS = 10.0
FULL_SECONDS = 40.0
LONG_SECONDS = 900.0
SECONDS = os.environ.get("BUSYAPI_TEST_KILL_SECONDS")
"""Replaces SHORT_SECONDS."""
SEED = int(os.environ.get("BUSYAPI_TEST_KILL_SEED", time.time_ns()))

KINDS = ((0, False), (0, True), (20, False), (20, True))
"""Batch size (0: single) and use of keys, for every kind of post."""
UNSTAMPED = StampedClient("", "")


def make_lengths(full: float) -> list[object]:
    """Return the seconds of the kill loop in `make test`, `make test-later` and `make soak`."""

    def length(seconds: float, *marks: pytest.MarkDecorator) -> object:
        return pytest.param(seconds, marks=[pytest.mark.timeout(seconds + 240), *marks])

    short = float(SECONDS or SHORT_SECONDS)
    return [
        length(short),
        length(full, pytest.mark.full),
        length(LONG_SECONDS, pytest.mark.long),
    ]


class Killer:
    """Kill and start the processes of a stack at random."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self.victims: list[Sequence[Child]] = [stack.apis, stack.flushers]
        self.chance = random.Random(seed)
        self.kills: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        """Kill one of each group in turn until the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for group in self.victims:
                time.sleep(self.chance.uniform(0, 1.5))
                self._hit(self.chance.choice(group))
                self.kills[type(group[0]).__name__] += 1
            self._hit_store()

    def _hit_store(self) -> None:
        """Kill a server of the buffer."""

    def _hit(self, victim: Child) -> None:
        if self.chance.random() < 0.2:
            # Suspend it: what it does when it resumes must not harm.
            victim.pause()
            time.sleep(self.chance.uniform(0, 1.5))
            if self.chance.random() < 0.5:
                victim.resume()
                return
        victim.kill9()
        time.sleep(self.chance.choice((0, self.chance.uniform(0, 1))))
        # Do not wait for it: the next kill may come while it still recovers.
        victim.spawn()


class ServerKiller(Killer):
    """Also kill the one server."""

    def __init__(self, stack: Stack, server: Server, seed: int) -> None:
        super().__init__(stack, seed)
        self.victims.append([server])


class SentinelKiller(Killer):
    """Also kill the Sentinels and the primary of a replicated pair.

    The primary is killed only while the replica is in sync: the tier promises two copies, and does
    not cover the loss of both. All other kills are random.
    """

    def __init__(self, stack: Stack, sentinels: SentinelSet, seed: int) -> None:
        super().__init__(stack, seed)
        self.sentinels = sentinels
        self.victims.append(sentinels.sentinels)

    def _hit_store(self) -> None:
        deadline = time.monotonic() + 60
        while (old := self._primary_in_sync()) is None:
            assert time.monotonic() < deadline, "the replica is not in sync"
            time.sleep(0.1)
        old.kill9()
        self.sentinels.wait_for_failover(old, 60)
        old.spawn()
        self.kills["primary"] += 1

    def _primary_in_sync(self) -> Server | None:
        try:
            primary = self.sentinels.primary()
            replication = self.sentinels.other(primary).replication()
        except (redis.RedisError, StopIteration):
            return None
        state = (
            replication["role"],
            replication.get("master_link_status"),
            replication.get("master_port"),
        )
        return primary if state == ("slave", "up", primary.port) else None


def run_trial(folder: Path, flavour: Flavour, seconds: float) -> None:
    """Kill for this long, and check the archive against the answers.

    Some clients have a credential and some have none: usages with and without a stamp share
    entries.
    """
    with Server(folder / "server", flavour) as server:
        stack = Stack(folder / "stack", server, apis=2)
        clients = configure_stamps(stack, folder, ["one", "two"])
        with stack:
            killer = ServerKiller(stack, server, SEED)
            verdict = kill_and_check(killer, stack, flavour, seconds, clients)
    # Redis answers after its fsync, so it loses nothing, and ids never jump.
    assert verdict.skipped == 0, f"BUSYAPI_TEST_KILL_SEED={SEED} on {flavour}\n{verdict}"


def run_sentinel_trial(folder: Path, flavour: Flavour, seconds: float) -> None:
    """Do the same to a replicated pair, which has every acknowledged usage twice."""
    settings = {"BUSYAPI_DURABILITY": "replicated", "BUSYAPI_BOUND": "10000"}
    with (
        SentinelSet(folder / "sentinels", flavour, config=UNPROMOTABLE) as sentinels,
        Stack(folder / "stack", sentinels, apis=2, settings=settings) as stack,
    ):
        kill_and_check(SentinelKiller(stack, sentinels, SEED), stack, flavour, seconds)


def kill_and_check(
    killer: Killer,
    stack: Stack,
    flavour: Flavour,
    seconds: float,
    clients: Sequence[StampedClient] = (),
) -> Verdict:
    """Kill under load of every kind, wait until all recover, and return the checker's verdict."""
    history = History()
    with ExitStack() as running:
        for (batch, keys), client in product(KINDS, [UNSTAMPED, *clients]):
            load = Load(
                stack.port,
                connections=1 if clients else 3,
                batch=batch,
                keys=keys,
                pause_after_201=0,
                history=history,
                token=client.token,
                writer=client.writer,
            )
            running.enter_context(load)
        killer.run(seconds)
        for process in stack.processes:
            process.wait_until_ready(60)
    stack.wait_until_archived(60)
    assert set(stack.stop().values()) == {0}
    verdict = stack.check_history(history)
    assert verdict.ok, f"BUSYAPI_TEST_KILL_SEED={SEED} on {flavour}\n{verdict}"
    assert run_verify(stack.archive) == 0
    assert min(killer.kills.values()) * 20 > seconds, killer.kills
    assert history.acknowledged
    return verdict


@pytest.mark.parametrize("seconds", make_lengths(FULL_SECONDS))
def test_nothing_acknowledged_is_lost_and_no_id_comes_twice(tmp_path: Path, seconds: float) -> None:
    run_on_both_servers(run_trial, tmp_path, seconds)


@pytest.mark.faults
@pytest.mark.parametrize("seconds", make_lengths(FULL_SECONDS / 2))
def test_a_failover_loses_nothing_and_stores_nothing_twice(tmp_path: Path, seconds: float) -> None:
    run_on_both_servers(run_sentinel_trial, tmp_path, seconds)


def run_on_both_servers(
    run: Callable[[Path, Flavour, float], None], folder: Path, seconds: float
) -> None:
    """Run a trial on both servers at the same time, because trials mostly wait."""
    with ThreadPoolExecutor(len(FLAVOURS)) as threads:
        trials = [threads.submit(run, folder / flavour, flavour, seconds) for flavour in FLAVOURS]
    for future in trials:
        future.result()
