"""Which servers' acknowledged usages a primary has, all of them."""

from busyapi.archive.holders import Holders
from busyapi.flusher.holder_check import find_predecessors
from busyapi.stream.replica_server import ServerData
from busyapi.stream.replica_store import PrimaryReplicas
from busyapi.stream.replicas import MAX_PREDECESSORS, ReplicaRecord, ReplicaView, parse_record

HOLDERS = Holders({"a:1": "a", "b:1": "b"})
RECORD = ReplicaRecord("a-1", frozenset({"b:1"}), "0-0", predecessors=("x-1",))


def make_primary(
    server_id: str, record: ReplicaRecord | None, *, continues: str = "1"
) -> PrimaryReplicas:
    """Return a primary whose data has a record, and whose history continues another one."""
    run_id, _, replid = server_id.partition("-")
    data = ServerData(run_id, replid=replid, previous_replid=continues)
    return PrimaryReplicas("b:1", server_id, ReplicaView((), ""), record, True, data)  # noqa: FBT003


def test_holder_has_everything_of_its_predecessors_and_of_theirs() -> None:
    assert find_predecessors(make_primary("b-2", RECORD), HOLDERS) == ("x-1", "a-1")


def test_primary_of_the_record_keeps_its_predecessors() -> None:
    assert find_predecessors(make_primary("a-1", RECORD), HOLDERS) == ("x-1",)


def test_server_that_is_no_holder_or_has_restarted_proves_nothing() -> None:
    assert find_predecessors(make_primary("c-2", RECORD), HOLDERS) == ()


def test_holder_that_has_copied_the_data_of_another_history_proves_nothing() -> None:
    # Its primary restarted on an older volume, whose data has the record from before the restart.
    assert find_predecessors(make_primary("b-3", RECORD, continues="2"), HOLDERS) == ()
    assert find_predecessors(make_primary("b-3", RECORD, continues="0" * 40), HOLDERS) == ()


def test_server_without_a_record_proves_nothing() -> None:
    assert find_predecessors(make_primary("b-2", None), HOLDERS) == ()


def test_holder_of_a_primary_that_proved_nothing_has_the_usages_of_that_one_only() -> None:
    record = RECORD._replace(predecessors=())
    assert find_predecessors(make_primary("b-2", record), HOLDERS) == ("a-1",)


def test_number_of_predecessors_is_limited() -> None:
    record = RECORD._replace(predecessors=tuple(f"x-{n}" for n in range(MAX_PREDECESSORS)))
    listed = find_predecessors(make_primary("b-2", record), HOLDERS)
    assert (len(listed), listed[-1]) == (MAX_PREDECESSORS, "a-1")


def test_record_of_an_earlier_version_has_no_predecessors() -> None:
    value = RECORD.encode().encode().replace(b', "predecessors": ["x-1"]', b"")
    assert parse_record(RECORD.encode().encode()) == RECORD
    assert parse_record(value) == RECORD._replace(predecessors=())
