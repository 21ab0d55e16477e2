"""Which holder a failover promotes."""

from collections.abc import Iterable

import pytest

from busyapi.archive.holders import Holders
from busyapi.flusher.holder_check import ArchiveEvidence
from busyapi.flusher.holder_choice import Choice, choose_holder
from busyapi.ids import Seq
from busyapi.stream.replica_server import ReplicaServer, ServerData

ARCHIVE = ArchiveEvidence("archive", Seq(100))


def make_server(name: str, seq: int | None, *, offset: int = 1, run_id: str = "") -> ReplicaServer:
    """Return a replica with the data of this archive; by default the process that was a holder."""
    known = None if seq is None else Seq(seq)
    data = ServerData(run_id or f"process-{name}", "archive", known, "history")
    return ReplicaServer(f"{name}:1", was_reached=True, offset=offset, data=data)


HOLDERS = Holders({f"{name}:1": f"process-{name}" for name in "abc"}, seq=Seq(50), replid="history")
BEHIND = make_server("a", 100, offset=10)
AHEAD = make_server("b", 100, offset=20)
LOST = ReplicaServer("c:1", problem="c:1 cannot be inspected")
EMPTY = make_server("c", None)._replace(data=ServerData("new"))


def choose(
    servers: Iterable[ReplicaServer],
    *,
    raised: Iterable[str] = (),
    may_wait: bool = True,
    is_failing_over: bool = False,
) -> Choice:
    """Choose among servers of HOLDERS."""
    holders = HOLDERS._replace(raised=frozenset(raised))
    return choose_holder(
        list(servers), holders, ARCHIVE, may_wait=may_wait, is_failing_over=is_failing_over
    )


def test_the_one_with_most_data_is_chosen() -> None:
    assert choose([BEHIND, AHEAD, LOST]).server == AHEAD


def test_the_one_chosen_before_stays_chosen() -> None:
    assert choose([BEHIND, AHEAD], raised=["a:1"]).server == BEHIND


def test_another_one_is_chosen_if_the_first_is_lost() -> None:
    assert choose([BEHIND, LOST], raised=["c:1"]).server == BEHIND


def test_the_first_is_waited_for_while_sentinels_may_be_promoting_it() -> None:
    waiting = choose([BEHIND, LOST], raised=["c:1"], is_failing_over=True)
    assert waiting == Choice(None, "the Sentinels may be promoting c:1")
    assert choose([BEHIND, LOST], raised=["b:1"], is_failing_over=True).server == BEHIND


def test_no_other_is_chosen_once_one_is_promoted() -> None:
    promoted = BEHIND._replace(is_primary=True)
    assert choose([promoted, AHEAD], raised=["a:1"]) == Choice(None)


def test_holder_that_calls_itself_a_primary_is_passed_over_and_named() -> None:
    primary = AHEAD._replace(is_primary=True)
    assert choose([primary, BEHIND]).server == BEHIND
    assert choose([primary]).reason == "b:1 is a primary that the flusher has not chosen"


def test_holder_that_began_another_history_must_have_what_the_archive_has() -> None:
    copied = make_server("a", 99)._replace(offset=30)
    copied = copied._replace(data=copied.data._replace(replid="other"))
    choice = choose([copied, LOST])
    assert choice.server is None
    assert (
        "has copied the data of a server that began another history, and ends at" in choice.reason
    )
    complete = copied._replace(data=copied.data._replace(seq=Seq(100)))
    assert choose([complete, LOST]).reason.startswith("a:1 has copied the data")
    assert choose([complete, BEHIND]).server == BEHIND
    promoted = copied.data._replace(previous_replid="history")
    assert choose([copied._replace(data=promoted)]).server is not None


def test_none_is_chosen_if_none_is_reached() -> None:
    assert choose([LOST]) == Choice(None, "c:1 cannot be inspected")


def test_none_is_chosen_if_there_is_no_other_holder() -> None:
    assert "no other server holds every acknowledged usage" in choose([]).reason


@pytest.mark.parametrize("may_wait", [True, False])
def test_empty_server_is_not_chosen_although_the_offsets_are_equal(may_wait: bool) -> None:  # noqa: FBT001
    full = make_server("b", 100, run_id="new")
    assert EMPTY.offset == full.offset
    assert choose([EMPTY, full], may_wait=may_wait).server == (None if may_wait else full)
    assert "it has no data of this partition" in choose([EMPTY]).reason


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (make_server("a", 49), "it ends at seq 49, and every holder had seq 50"),
        (make_server("a", 99, run_id="new"), "it has restarted, and ends at seq 99"),
        (
            BEHIND._replace(data=ServerData("process-a", "other", Seq(100))),
            "its data belongs to archive other",
        ),
    ],
)
def test_server_that_may_lack_usages_is_not_chosen(server: ReplicaServer, reason: str) -> None:
    chosen = choose([server], may_wait=False)
    assert chosen.server is None
    assert reason in chosen.reason


def test_process_that_did_not_restart_may_lack_what_was_archived_before_it_was_confirmed() -> None:
    unconfirmed = make_server("a", 99)
    assert choose([unconfirmed]).server == unconfirmed


def test_process_that_did_not_restart_is_preferred() -> None:
    restarted = make_server("b", 200, run_id="new")
    assert choose([restarted, BEHIND]).server == BEHIND
    assert choose([restarted, BEHIND], raised=["b:1"]).server == BEHIND


def test_restarted_one_waits_for_the_others_for_a_while() -> None:
    restarted = make_server("b", 100, run_id="new")
    waiting = choose([restarted, LOST])
    assert waiting.server is None
    assert waiting.reason.startswith("b:1 has restarted: the flusher waits for the other holders")
    assert choose([restarted, LOST], may_wait=False).server == restarted


def test_of_restarted_ones_the_one_with_the_highest_seq_is_chosen() -> None:
    older = make_server("a", 100, offset=30, run_id="new-a")
    newer = make_server("b", 101, offset=1, run_id="new-b")
    assert choose([older, newer]).server == newer
