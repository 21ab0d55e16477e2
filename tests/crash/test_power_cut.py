"""All servers lose their power at once, and one of them its volume too: nothing is lost.

They are back one after the other, in every order. The flusher has archived nothing of the last
second. A server without data starts as a replica, as the documentation requires.
"""

import time
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import pytest

from testkit import mutants
from testkit.broken_build import broken_build
from testkit.checker import Defect
from testkit.replicated import ReplicatedStack, start_as_replica
from testkit.rounds import SEED, describe_failure, make_chance, make_rounds
from testkit.servers import FLAVOURS, Flavour

RETURN_SECONDS = 4
"""Between two servers. The Sentinels find the primary down after one second."""
RECOVERY_SECONDS = 120
"""An empty former primary is noticed after 21 seconds, and the flusher waits for 30."""
PRIMARY, FIRST, SECOND = range(3)


class PowerCut(NamedTuple):
    """One way of returning: which server is empty, and the order of all three."""

    empty: int
    order: tuple[int, ...]


POWER_CUTS = [
    *(PowerCut(FIRST, order) for order in permutations(range(3))),
    # The two replicas are alike here.
    *(
        PowerCut(PRIMARY, order)
        for order in permutations(range(3))
        if order.index(FIRST) < order.index(SECOND)
    ),
]


def cut_power(replicated: ReplicatedStack, cut: PowerCut) -> None:
    """Kill all servers, and start them again."""
    servers = [replicated.sentinels.primary(), *replicated.replicas()]
    (flusher,) = replicated.stack.flushers
    flusher.pause()
    time.sleep(1)
    for server in servers:
        server.kill9()
    flusher.resume()
    servers[cut.empty].wipe()
    for n in cut.order:
        if n == PRIMARY == cut.empty:
            start_as_replica(servers[PRIMARY], servers[FIRST])
        else:
            servers[n].spawn()
        time.sleep(RETURN_SECONDS)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("rounds", make_rounds(2, len(POWER_CUTS), 2 * RECOVERY_SECONDS))
def test_nothing_is_lost_when_all_servers_lose_their_power(
    tmp_path: Path, flavour: Flavour, rounds: int
) -> None:
    replicated = ReplicatedStack(tmp_path, flavour)
    with replicated.running():
        with replicated.posting():
            for cut in make_chance().sample(POWER_CUTS, min(rounds, len(POWER_CUTS))):
                with describe_failure(cut):
                    cut_power(replicated, cut)
                    replicated.wait_for_holders(RECOVERY_SECONDS)
                    replicated.wait_for_usages()
        verdict = replicated.finish()
    assert verdict.ok, f"BUSYAPI_TEST_KILL_SEED={SEED}\n{verdict}"


@pytest.mark.mutants
def test_build_that_promotes_an_empty_server_is_caught(tmp_path: Path) -> None:
    replicated = ReplicatedStack(tmp_path, "valkey", broken_build(mutants.trust_every_holder))
    with replicated.running():
        with replicated.posting():
            cut_power(replicated, PowerCut(FIRST, (FIRST, SECOND, PRIMARY)))
            replicated.wait_for_holders(RECOVERY_SECONDS)
            replicated.wait_for_usages()
        verdict = replicated.finish()
    assert Defect.MISSING in verdict.defects, verdict
