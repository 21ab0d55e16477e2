"""Which holder the Sentinels must prefer to a former primary."""

from pathlib import Path

import pytest

from busyapi.archive.holders import Holders
from busyapi.flusher import preferred_holder
from busyapi.flusher.holder_record import HolderRecord
from busyapi.flusher.preferred_holder import PreferredHolder
from busyapi.flusher.replica_servers import ServerReport
from busyapi.ids import Seq
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.replica_server import ReplicaServer, ServerData
from busyapi.stream.replica_store import PrimaryReplicas
from busyapi.stream.replicas import ReplicaRecord, ReplicaView
from busyapi.stream.sentinel_view import SentinelView

FORMER, PRIMARY, OTHER = "10.0.0.1:6379", "10.0.0.2:6379", "10.0.0.3:6379"
RUN_IDS = {FORMER: "one", PRIMARY: "two", OTHER: "three"}
BEFORE, AFTER = Holders(RUN_IDS), Holders({PRIMARY: "two", OTHER: "three"})


async def never(address: str, seconds: float) -> None:
    """Fail: a choice alone records nothing."""
    raise AssertionError(f"{address} was raised for {seconds} s")


def make_preferred() -> PreferredHolder:
    """Return the choices of a new flusher."""
    endpoint = Endpoint(mode="sentinel", hosts=())
    return PreferredHolder(endpoint, HolderRecord(Path("none")), never, minimum=1)


def use_primary(preferred: PreferredHolder, recorded: str, holders: Holders) -> None:
    """Use PRIMARY, whose data have the record of a server."""
    record = ReplicaRecord(f"{RUN_IDS[recorded]}-history", frozenset(), "")
    data, view = ServerData("two", "a", Seq(1)), ReplicaView((), "")
    primary = PrimaryReplicas(PRIMARY, "two-history", view, record, can_confirm_aof=True, data=data)
    preferred.note_primary(primary, holders)


@pytest.fixture
def preferred(monkeypatch: pytest.MonkeyPatch) -> PreferredHolder:
    """Return the choices of a flusher that uses a new primary, and does not wait."""
    monkeypatch.setattr(preferred_holder, "MIN_NEEDED_SECONDS", -1.0)
    preferred = make_preferred()
    use_primary(preferred, FORMER, BEFORE)
    return preferred


def choose(
    preferred: PreferredHolder,
    *assumed: str,
    holders: Holders = AFTER,
    confirming: tuple[str, ...] = (OTHER,),
) -> str:
    """Return which holder must be preferred if the Sentinels assume these servers' priorities."""
    view = SentinelView(frozenset({FORMER, OTHER}), frozenset(), frozenset(assumed))
    servers = {
        address: ReplicaServer(address, was_reached=True, data=ServerData(run_id))
        for address, run_id in RUN_IDS.items()
    }
    report = ServerReport(servers, mode="sentinel", view=view)
    return preferred.choose(PRIMARY, report, holders, frozenset(confirming))


def test_only_replica_is_preferred_to_a_former_primary(preferred: PreferredHolder) -> None:
    assert choose(preferred, FORMER, OTHER) == OTHER
    assert choose(preferred) == "", "the Sentinels know the priority of the former primary"


def test_replica_is_preferred_only_if_that_is_needed_for_seconds() -> None:
    preferred = make_preferred()
    use_primary(preferred, FORMER, BEFORE)
    assert choose(preferred, FORMER, OTHER) == ""


def test_nothing_is_preferred_before_a_holder_confirms(preferred: PreferredHolder) -> None:
    assert choose(preferred, FORMER, confirming=()) == ""
    assert choose(preferred, FORMER, holders=Holders({PRIMARY: "two"})) == ""
    restarted = Holders({PRIMARY: "two", OTHER: "before"})
    assert choose(preferred, FORMER, holders=restarted) == ""
    assert choose(preferred, FORMER) == OTHER


def test_commits_that_another_replica_can_confirm_need_no_preferred_one(
    preferred: PreferredHolder,
) -> None:
    assert choose(preferred, FORMER) == OTHER
    assert choose(preferred, FORMER, confirming=(OTHER, "10.0.0.4:6379")) == ""


def test_preference_outlasts_a_moment_without_answers(preferred: PreferredHolder) -> None:
    assert choose(preferred, FORMER) == OTHER
    assert choose(preferred, FORMER, confirming=()) == OTHER
    report = ServerReport({}, mode="sentinel")
    assert preferred.choose(PRIMARY, report, AFTER, frozenset({OTHER})) == OTHER


def test_former_primary_of_a_handover_confirms_and_is_not_preferred(
    preferred: PreferredHolder,
) -> None:
    assert choose(preferred, OTHER, confirming=(FORMER,), holders=BEFORE) == ""
    assert choose(preferred, FORMER) == "", "it confirmed: the Sentinels made it a replica"


def test_restarted_replica_is_no_former_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preferred_holder, "MIN_NEEDED_SECONDS", -1.0)
    preferred = make_preferred()
    use_primary(preferred, PRIMARY, BEFORE)
    assert choose(preferred, FORMER) == ""


def test_former_primary_is_remembered_after_a_second_failover(preferred: PreferredHolder) -> None:
    use_primary(preferred, OTHER, AFTER)
    assert choose(preferred, FORMER) == OTHER


def test_restarted_flusher_keeps_the_preference_on_record() -> None:
    preferred = make_preferred()
    on_record = AFTER._replace(raised=frozenset({OTHER}))
    use_primary(preferred, PRIMARY, on_record)
    assert choose(preferred, FORMER, holders=on_record) == OTHER
    assert choose(preferred, holders=on_record) == ""
