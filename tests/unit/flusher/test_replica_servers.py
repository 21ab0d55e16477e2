"""Which replicas may confirm, and when no commit is allowed."""

import pytest

from busyapi.archive.holders import Holders
from busyapi.flusher.replica_servers import ServerReport, find_confirming, find_refusal
from busyapi.ids import Seq
from busyapi.stream.replica_server import ReplicaServer, ServerData
from busyapi.stream.replica_store import PrimaryReplicas
from busyapi.stream.replicas import ReplicaRecord, ReplicaView
from busyapi.stream.sentinel_view import NamedPrimary, SentinelView

PRIMARY, ONE, TWO = "10.0.0.1:6379", "10.0.0.2:6379", "10.0.0.3:6379"
VIEW = ReplicaView(((ONE, "online"), (TWO, "online")), "2-0")
LISTED = PrimaryReplicas(
    PRIMARY, "run-history", VIEW, None, can_confirm_aof=True, data=ServerData("run", "a", Seq(1))
)
GOOD = ReplicaServer(ONE, was_reached=True, is_unpromotable=True, replid="history")
OTHER = GOOD._replace(address=TWO)
LOST = ReplicaServer(TWO, problem="it cannot be inspected")
BOTH = frozenset({ONE, TWO})


def report(
    *servers: ReplicaServer, view: SentinelView | None = None, mode: str = "sentinel"
) -> ServerReport:
    """Return a report in which the Sentinels list both replicas, unless it says otherwise."""
    known = view or SentinelView(BOTH, frozenset())
    return ServerReport({server.address: server for server in servers}, mode=mode, view=known)


def refuse(inspected: ServerReport, *, raised: str = "", minimum: int = 1) -> str:
    """Return why no commit is allowed."""
    holders = Holders({PRIMARY: "run"}, frozenset(filter(None, [raised])))
    confirming = find_confirming(inspected, LISTED)
    return find_refusal(inspected, LISTED, holders, confirming, minimum)


def test_replicas_that_are_in_order_confirm() -> None:
    inspected = report(GOOD, OTHER)
    assert find_confirming(inspected, LISTED) == BOTH
    assert refuse(inspected, minimum=2) == ""


def test_replica_that_sentinels_list_under_another_address_does_not_confirm() -> None:
    inspected = report(GOOD, OTHER, view=SentinelView(frozenset({ONE, "two:6379"}), frozenset()))
    assert find_confirming(inspected, LISTED) == {ONE}
    assert refuse(inspected) == ""
    expected = f"the primary lists {TWO}, and the Sentinels list {ONE}, two:6379"
    assert expected in refuse(inspected, minimum=2)


def test_replica_joins_only_if_a_sentinel_answers() -> None:
    inspected = report(GOOD, OTHER)._replace(view=None)
    assert find_confirming(inspected, LISTED) == frozenset()
    assert "no Sentinel says which replicas it knows" in refuse(inspected)


def test_replica_that_confirms_already_stays_without_sentinels() -> None:
    known = LISTED._replace(record=ReplicaRecord("run-history", BOTH, "2-0"))
    assert find_confirming(report(GOOD, LOST)._replace(view=None), known) == BOTH


@pytest.mark.parametrize("mode", ["standalone", "cluster"])
def test_addresses_are_compared_only_with_those_of_sentinels(mode: str) -> None:
    inspected = report(GOOD, OTHER, mode=mode)._replace(view=None)
    assert find_confirming(inspected, LISTED) == BOTH


def test_server_that_sentinels_may_promote_must_confirm() -> None:
    view = SentinelView(BOTH, frozenset({TWO}))
    assert refuse(report(GOOD, OTHER, view=view)) == ""
    assert f"the Sentinels may promote {TWO}" in refuse(report(GOOD, LOST, view=view))
    settling = OTHER._replace(is_settling=True)
    assert f"the Sentinels may promote {TWO}" in refuse(report(GOOD, settling, view=view))


def test_unreachable_replica_that_no_sentinel_promotes_stops_nothing() -> None:
    assert refuse(report(GOOD, LOST)) == ""


def test_unreachable_replica_stops_commits_if_no_sentinel_says_its_priority() -> None:
    assert refuse(report(GOOD, LOST)._replace(view=None)) == "it cannot be inspected"


def test_other_priority_than_0_stops_commits_unless_the_flusher_raised_it() -> None:
    inspected = report(GOOD, OTHER._replace(is_unpromotable=False))
    assert refuse(inspected).startswith(f"set `replica-priority 0` on {TWO}")
    assert refuse(inspected, raised=TWO) == ""
    assert refuse(inspected._replace(mode="cluster")) == ""


def test_raised_server_that_is_lost_is_named_with_the_way_out() -> None:
    refusal = refuse(report(GOOD, LOST), raised=TWO)
    assert f"{TWO} may still be promoted" in refusal
    assert "busyapi archive accept-primary" in refusal


def test_node_that_a_cluster_may_promote_must_confirm() -> None:
    inspected = report(GOOD, LOST, mode="cluster")._replace(cluster=BOTH)
    assert f"the cluster may promote {TWO}" in refuse(inspected)


def test_too_few_name_each_reason() -> None:
    settling = OTHER._replace(is_settling=True)
    refusal = refuse(report(GOOD, settling), minimum=2)
    assert "1 replicas can confirm, BUSYAPI_MIN_REPLICAS is 2" in refusal
    assert f"{TWO} loads data" in refusal


SETTLED = NamedPrimary(PRIMARY, 2)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (SETTLED, ""),
        # It has not heard of the last failover yet.
        (SETTLED._replace(address=ONE, epoch=1), ""),
        (
            SETTLED._replace(address=ONE, epoch=3),
            f"a Sentinel names {ONE} as the primary, after {PRIMARY}",
        ),
        (SETTLED._replace(promoting=ONE), "a Sentinel is promoting another server"),
        (SETTLED._replace(promoting="?"), "a Sentinel is promoting another server"),
    ],
)
def test_no_commit_is_allowed_while_a_sentinel_replaces_the_primary(
    other: NamedPrimary, expected: str
) -> None:
    view = SentinelView(BOTH, frozenset(), primaries=(SETTLED, other))
    assert refuse(report(GOOD, OTHER, view=view)) == expected


FORMER = NamedPrimary(ONE, 1)
PROMOTING = NamedPrimary(ONE, 1, promoting=PRIMARY)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ((FORMER, PROMOTING), ""),
        # No Sentinel is known to promote it.
        ((FORMER,), f"a Sentinel names {ONE} as the primary, after {PRIMARY}"),
        # Another failover came later.
        (
            (NamedPrimary(TWO, 2), PROMOTING),
            f"a Sentinel names {TWO} as the primary, after {PRIMARY}",
        ),
        (
            (PROMOTING, NamedPrimary(ONE, 1, promoting=TWO)),
            "a Sentinel is promoting another server",
        ),
    ],
)
def test_server_that_a_sentinel_is_promoting_allows_commits_before_the_sentinel_sees_it(
    others: tuple[NamedPrimary, ...], expected: str
) -> None:
    view = SentinelView(BOTH, frozenset(), primaries=others)
    assert refuse(report(GOOD, OTHER, view=view)) == expected
    # Another Sentinel must be able to promote it if the one that does it is lost.
    assert not view.has_promoted(PRIMARY)
