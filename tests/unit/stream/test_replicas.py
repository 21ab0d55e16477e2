"""What a committer concludes from the replicas that a primary lists."""

import pytest

from busyapi.stream.connection import ServerError
from busyapi.stream.replicas import (
    ReplicaRecord,
    ReplicaView,
    describe_unconfirmed,
    find_unconfirmed,
    make_confirm_commands,
    parse_record,
    parse_silent,
    parse_view,
)

INFO = (
    b"# Replication\r\nrole:master\r\nconnected_slaves:3\r\n"
    b"slave0:ip=10.0.0.2,port=6379,state=online,offset=140,lag=0,type=replica\r\n"
    b"slave1:ip=fd00::3,port=6380,state=online,offset=126,lag=1\r\n"
    b"slave2:ip=10.0.0.4,port=6379,state=wait_bgsave,offset=0,lag=0\r\n"
    b"master_replid:aa\r\n# Stats\r\nsync_full:3\r\nsync_partial_ok:12\r\nsync_partial_err:1\r\n"
)
ONE, TWO, THREE = "10.0.0.2:6379", "fd00::3:6380", "10.0.0.4:6379"
VIEW = ReplicaView(((ONE, "online"), (TWO, "online"), (THREE, "wait_bgsave")), "3-12")
RECORD = ReplicaRecord("server", frozenset({ONE, TWO}), "3-12")


def test_view_has_each_connection_with_its_state_and_the_counters() -> None:
    assert parse_view(INFO) == VIEW
    assert VIEW.online == [ONE, TWO]
    assert VIEW.listed == {ONE, TWO, THREE}


def test_online_replica_without_an_acknowledgement_for_seconds_is_silent() -> None:
    assert parse_silent(INFO) == frozenset()
    late = INFO.replace(b"lag=1\r", b"lag=3\r").replace(b"offset=0,lag=0", b"offset=0,lag=9")
    assert parse_silent(late) == {TWO}


def test_record_survives_encoding() -> None:
    assert parse_record(RECORD.encode().encode()) == RECORD


@pytest.mark.parametrize("value", [None, b"", b"[]", b"1", b'{"confirming": []}'])
def test_record_that_cannot_be_read_is_none(value: bytes | None) -> None:
    assert parse_record(value) is None


def test_commands_wait_for_every_online_replica() -> None:
    wait, wait_aof, _ = make_confirm_commands(VIEW, 100, aof=True)
    assert (wait, wait_aof) == (("WAIT", 2, 100), ("WAITAOF", 1, 2, 100))
    assert len(make_confirm_commands(VIEW, 100, aof=False)) == 2


def test_write_is_confirmed_if_all_received_and_synced_it_on_the_same_connections() -> None:
    assert find_unconfirmed(VIEW, [2, [1, 2], INFO]) == ""
    assert find_unconfirmed(VIEW, [2, INFO]) == ""
    # Another count than the one asked for: a third one is online.
    assert find_unconfirmed(VIEW, [3, [1, 3], INFO]) == ""


@pytest.mark.parametrize(
    "replies",
    [
        [1, [1, 2], INFO],
        [2, [0, 2], INFO],
        [2, [1, 1], INFO],
        [2, [1, 2], ServerError("NOPERM")],
        [ServerError("NOPERM"), [1, 2], INFO],
        [2, ServerError("NOPERM"), INFO],
        # The count may be that of another replica, which has come and gone.
        [2, [1, 2], INFO.replace(b"sync_full:3", b"sync_full:4")],
        [2, [1, 2], INFO.replace(b"sync_partial_ok:12", b"sync_partial_ok:13")],
        [2, [1, 2], INFO.replace(b"wait_bgsave", b"online")],
        [2, [1, 2], INFO.replace(b"slave2", b"former")],
        [2, [1, 2], INFO.replace(b"10.0.0.2", b"10.0.0.9")],
    ],
)
def test_write_is_not_confirmed_by_fewer_or_by_other_replicas(replies: list[object]) -> None:
    assert find_unconfirmed(VIEW, replies)


def test_commits_are_allowed_if_the_record_is_that_of_the_view() -> None:
    assert describe_unconfirmed(RECORD, VIEW, "server", 2) == ""


@pytest.mark.parametrize(
    ("record", "minimum", "reason"),
    [
        (None, 1, "not yet recorded"),
        (RECORD._replace(server_id="former"), 1, "not yet recorded"),
        (RECORD._replace(refusal="set this"), 1, "set this"),
        (RECORD._replace(confirming=frozenset({ONE, THREE})), 1, f"{THREE} must confirm"),
        (RECORD._replace(syncs="3-11"), 1, "not inspected it yet"),
        (RECORD, 3, "2 replicas can confirm, BUSYAPI_MIN_REPLICAS is 3"),
    ],
)
def test_commits_are_refused_with_the_reason(
    record: ReplicaRecord | None, minimum: int, reason: str
) -> None:
    assert reason in describe_unconfirmed(record, VIEW, "server", minimum)
