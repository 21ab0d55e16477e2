"""kill -9 of API, flusher, Redis and Sentinels in turn, at random moments, under load.

Whatever was acknowledged is archived once, whatever was refused is not, and no id came twice: the
history checker says so afterwards, and `busyapi archive verify` agrees. A run that failed is tried
again with the seed it names: BUSYAPI_TEST_KILL_SEED.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from testkit.archive.command import run_verify
from testkit.checker import Verdict
from testkit.child_process import Child
from testkit.history import History
from testkit.load import Load
from testkit.processes import Stack
from testkit.servers import FLAVOURS, Flavour, Server
from testkit.topologies import SentinelSet

SHORT_SECONDS = 10.0
FULL_SECONDS = 60.0
LONG_SECONDS = 900.0
SECONDS = os.environ.get("BUSYAPI_TEST_KILL_SECONDS")
"""Replaces the short length."""
SEED = int(os.environ.get("BUSYAPI_TEST_KILL_SEED", time.time_ns()))

KINDS = ((0, False), (0, True), (20, False), (20, True))
"""Every kind of post: single and batch, with and without a key."""


def lengths(full: float) -> list[object]:
    """Return how many seconds to kill: in `make test`, `make test-later` and `make soak`."""

    def length(seconds: float, *marks: pytest.MarkDecorator) -> object:
        return pytest.param(seconds, marks=[pytest.mark.timeout(seconds + 240), *marks])

    short = float(SECONDS or SHORT_SECONDS)
    return [
        length(short),
        length(full, pytest.mark.full),
        length(LONG_SECONDS, pytest.mark.long),
    ]


class Killer:
    """Ends and starts the parts of a stack as chance will have it."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self.victims: list[Sequence[Child]] = [stack.apis, stack.flushers]
        self.chance = random.Random(seed)
        self.kills: Counter[str] = Counter()

    def go_on(self, seconds: float) -> None:
        """Kill each in turn, and again, until the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for those in self.victims:
                time.sleep(self.chance.uniform(0, 1.5))
                self._hit(self.chance.choice(those))
                self.kills[type(those[0]).__name__] += 1
            self._hit_store()

    def _hit_store(self) -> None:
        """End one of what keeps the usages until they are archived."""

    def _hit(self, victim: Child) -> None:
        if self.chance.random() < 0.2:
            # As if it had slept: what it does when it wakes must not harm.
            victim.pause()
            time.sleep(self.chance.uniform(0, 1.5))
            if self.chance.random() < 0.5:
                victim.resume()
                return
        victim.kill9()
        time.sleep(self.chance.choice((0, self.chance.uniform(0, 1))))
        # Not waited for: the next kill may come while this one still recovers.
        victim.spawn()


class OfOne(Killer):
    """One server, which is killed like all the others."""

    def __init__(self, stack: Stack, server: Server, seed: int) -> None:
        super().__init__(stack, seed)
        self.victims.append([server])


class OfSentinels(Killer):
    """A primary and its replica under three Sentinels.

    The primary is killed only while the replica has all of it: the tier promises two copies, not
    that both may be lost. Whatever else dies, and when, is up to chance.
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
            said = self.sentinels.other(primary).replication()
        except (redis.RedisError, StopIteration):
            return None
        found = said["role"], said.get("master_link_status"), said.get("master_port")
        return primary if found == ("slave", "up", primary.port) else None


def trial(folder: Path, flavour: Flavour, seconds: float) -> None:
    """Kill for so long, and hold what is left against what was answered."""
    with (
        Server(folder / "server", flavour) as server,
        Stack(folder / "stack", server, apis=2) as stack,
    ):
        verdict = judged(OfOne(stack, server, SEED), stack, flavour, seconds)
    # Redis answers after its fsync, so that not even it loses anything: ids never had to jump.
    assert verdict.skipped == 0, f"BUSYAPI_TEST_KILL_SEED={SEED} on {flavour}\n{verdict}"


def sentinel_trial(folder: Path, flavour: Flavour, seconds: float) -> None:
    """Do the same to a replicated pair: an acknowledged usage is on both."""
    settings = {"BUSYAPI_DURABILITY": "replicated", "BUSYAPI_BOUND": "10000"}
    with (
        SentinelSet(folder / "sentinels", flavour) as sentinels,
        Stack(folder / "stack", sentinels, apis=2, settings=settings) as stack,
    ):
        judged(OfSentinels(stack, sentinels, SEED), stack, flavour, seconds)


def judged(killer: Killer, stack: Stack, flavour: Flavour, seconds: float) -> Verdict:
    """Kill under load of every kind, let all recover, and return the checker's word."""
    history = History()
    with ExitStack() as running:
        for batch, keys in KINDS:
            load = Load(stack.port, connections=3, batch=batch, keys=keys, rest=0, history=history)
            running.enter_context(load)
        killer.go_on(seconds)
        for each in stack.processes:
            each.wait_until_ready(60)
    stack.wait_until_archived(60)
    assert set(stack.stop().values()) == {0}
    verdict = stack.check_history(history)
    assert verdict.ok, f"BUSYAPI_TEST_KILL_SEED={SEED} on {flavour}\n{verdict}"
    assert run_verify(stack.archive) == 0
    assert min(killer.kills.values()) * 20 > seconds, killer.kills
    assert history.acknowledged
    return verdict


@pytest.mark.parametrize("seconds", lengths(FULL_SECONDS))
def test_nothing_acknowledged_is_lost_and_no_id_comes_twice(tmp_path: Path, seconds: float) -> None:
    both_at_once(trial, tmp_path, seconds)


@pytest.mark.parametrize("seconds", lengths(FULL_SECONDS / 2))
def test_a_failover_loses_nothing_and_stores_nothing_twice(tmp_path: Path, seconds: float) -> None:
    both_at_once(sentinel_trial, tmp_path, seconds)


def both_at_once(one: Callable[[Path, Flavour, float], None], folder: Path, seconds: float) -> None:
    """Run a trial on both servers: they are waited for more than they work."""
    with ThreadPoolExecutor(len(FLAVOURS)) as threads:
        trials = [threads.submit(one, folder / flavour, flavour, seconds) for flavour in FLAVOURS]
    for each in trials:
        each.result()
