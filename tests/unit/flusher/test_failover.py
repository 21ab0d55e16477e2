"""Which holder a failover promotes."""

from busyapi.flusher.failover import choose_holder
from busyapi.stream.replica_server import ReplicaServer

BEHIND = ReplicaServer("a:1", was_reached=True, offset=10)
AHEAD = ReplicaServer("b:1", was_reached=True, offset=20)
LOST = ReplicaServer("c:1", problem="it cannot be inspected")


def test_the_one_with_most_data_is_chosen() -> None:
    assert choose_holder([BEHIND, AHEAD, LOST], frozenset()) == AHEAD


def test_the_one_chosen_before_stays_chosen() -> None:
    assert choose_holder([BEHIND, AHEAD], frozenset({"a:1"})) == BEHIND


def test_another_one_is_chosen_if_the_first_is_lost() -> None:
    assert choose_holder([BEHIND, LOST], frozenset({"c:1"})) == BEHIND


def test_no_other_is_chosen_once_one_is_promoted() -> None:
    promoted = BEHIND._replace(is_primary=True)
    assert choose_holder([promoted, AHEAD], frozenset({"a:1"})) is None


def test_holder_that_calls_itself_a_primary_is_passed_over() -> None:
    assert choose_holder([AHEAD._replace(is_primary=True), BEHIND], frozenset()) == BEHIND


def test_none_is_chosen_if_none_is_reached() -> None:
    assert choose_holder([LOST], frozenset()) is None
