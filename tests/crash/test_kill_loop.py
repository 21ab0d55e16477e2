"""kill -9 of API, flusher and Redis in turn, at random moments, under load.

Whatever was acknowledged is archived once, whatever was refused is not, and no id came twice: the
history checker says so afterwards, and `busyapi archive verify` agrees. A run that failed is tried
again with the seed it names: BUSYAPI_TEST_KILL_SEED.
"""

import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.commands import verify
from tests.support.children import Child
from tests.support.history import History
from tests.support.load import Load
from tests.support.processes import Stack
from tests.support.servers import FLAVOURS, Flavour, Server

DEFAULT_SECONDS = 60.0
SECONDS = float(os.environ.get("BUSYAPI_TEST_KILL_SECONDS", DEFAULT_SECONDS))
LONG_SECONDS = max(SECONDS, 900.0)
SEED = int(os.environ.get("BUSYAPI_TEST_KILL_SEED", time.time_ns()))

KINDS = ((0, False), (0, True), (20, False), (20, True))
"""Every kind of post: single and batch, with and without a key."""


def lengths() -> list[object]:
    """Return how long to kill: a minute in `make test`, a quarter of an hour in `make soak`."""
    short = pytest.param(
        SECONDS,
        marks=[
            pytest.mark.timeout(SECONDS + 240),
            *([pytest.mark.long] if SECONDS > DEFAULT_SECONDS else []),
        ],
    )
    long = pytest.param(
        LONG_SECONDS, marks=[pytest.mark.timeout(LONG_SECONDS + 240), pytest.mark.long]
    )
    return [short, long]


class Killer:
    """Ends and starts the parts of a stack as chance will have it."""

    def __init__(self, stack: Stack, server: Server, seed: int) -> None:
        self.victims: list[Sequence[Child]] = [stack.apis, stack.flushers, [server]]
        self.chance = random.Random(seed)
        self.kills = [0] * len(self.victims)

    def go_on(self, seconds: float) -> None:
        """Kill each in turn, and again, until the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for n, those in enumerate(self.victims):
                time.sleep(self.chance.uniform(0, 1.5))
                self._hit(self.chance.choice(those))
                self.kills[n] += 1

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


def trial(folder: Path, flavour: Flavour, seconds: float) -> None:
    """Kill for so long, and hold what is left against what was answered."""
    history = History()
    with (
        Server(folder / "server", flavour) as server,
        Stack(folder / "stack", server, apis=2) as stack,
    ):
        killer = Killer(stack, server, SEED)
        with ExitStack() as running:
            for batch, keys in KINDS:
                load = Load(
                    stack.port, connections=3, batch=batch, keys=keys, rest=0, history=history
                )
                running.enter_context(load)
            killer.go_on(seconds)
            for each in stack.processes:
                each.wait_until_ready(60)
        stack.wait_until_archived(60)
        assert set(stack.stop().values()) == {0}
    verdict = stack.verdict(history)
    assert verdict.ok, f"BUSYAPI_TEST_KILL_SEED={SEED} on {flavour}\n{verdict}"
    # Redis answers after its fsync, so that not even it loses anything: ids never had to jump.
    assert verdict.skipped == 0, f"BUSYAPI_TEST_KILL_SEED={SEED} on {flavour}\n{verdict}"
    assert verify(stack.archive) == 0
    assert min(killer.kills) * 12 > seconds
    assert history.acknowledged


@pytest.mark.parametrize("seconds", lengths())
def test_nothing_acknowledged_is_lost_and_no_id_comes_twice(tmp_path: Path, seconds: float) -> None:
    # Both servers at once: they are waited for more than they work, and disturb each other.
    with ThreadPoolExecutor(len(FLAVOURS)) as threads:
        trials = [
            threads.submit(trial, tmp_path / flavour, flavour, seconds) for flavour in FLAVOURS
        ]
    for each in trials:
        each.result()
