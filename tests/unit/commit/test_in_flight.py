"""What one batch takes along, and what it leaves for the next."""

from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busyapi.commit.in_flight import (
    MAX_BATCH_BYTES,
    MAX_BATCH_USAGES,
    MAX_KEYED_WRITES,
    InFlightBatch,
    form_batch,
)
from busyapi.commit.pending import AdmissionControl, AwaitedWrite, IdempotencyKey, PendingWrite
from busyapi.errors import OutcomeUnknown, Overloaded
from busyapi.stream.entry import decode_entry, parse_entry
from busyapi.stream.keys import PartitionKeys

KEYS = PartitionKeys(0)


class Silent(PendingWrite):
    """A group that nobody waits for."""

    is_waiting = False

    def complete(self, last: int, *, replayed: bool = False) -> None:
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        raise NotImplementedError


def group(
    lines: Sequence[bytes], key: IdempotencyKey | None = None, size: int | None = None
) -> PendingWrite:
    made = Silent(lines, key)
    made.size = made.size if size is None else size
    return made


def plain(count: int = 1, size: int | None = None) -> PendingWrite:
    return group([b"{}"] * count, size=size)


def keyed(name: str) -> PendingWrite:
    return group([b"{}"], IdempotencyKey(name, "body", f"old-{name}"))


def test_waiting_groups_become_one_call_in_their_order() -> None:
    pending = deque([group([b"a"]), group([b"b", b"c"]), group([b"d"])])
    batch = form_batch(pending, KEYS, "me", 7)
    ((command, writes),) = batch.commands
    assert (command.usage_count, command.dedup_token, command.mode, command.dedup_key) == (
        4,
        "7",
        "batch",
        KEYS.committer("me"),
    )
    assert decode_entry(parse_entry(b"4-4", [b"u", command.entry])).lines == [
        b"a",
        b"b",
        b"c",
        b"d",
    ]
    assert [each.count for each in writes] == [1, 2, 1]
    assert not pending


def test_each_key_is_a_call_of_its_own() -> None:
    pending = deque([plain(), keyed("k1"), plain(2), keyed("k2")])
    commands = [command for command, _ in form_batch(pending, KEYS, "me", 1).commands]
    assert sorted(
        (command.mode, command.usage_count, command.dedup_key) for command in commands
    ) == [
        ("batch", 3, KEYS.committer("me")),
        ("key", 1, KEYS.legacy_idempotency_key("old-k1")),
        ("key", 1, KEYS.legacy_idempotency_key("old-k2")),
    ]


def test_flight_ends_at_the_most_usages() -> None:
    pending = deque([plain(MAX_BATCH_USAGES - 1), plain(), plain()])
    assert form_batch(pending, KEYS, "me", 1).commands[0][0].usage_count == MAX_BATCH_USAGES
    assert len(pending) == 1


def test_flight_ends_at_the_most_bytes() -> None:
    pending = deque([plain(size=MAX_BATCH_BYTES - 1), plain(size=1), plain(size=1)])
    assert form_batch(pending, KEYS, "me", 1).commands[0][0].usage_count == 2
    assert len(pending) == 1


def test_flight_ends_at_the_most_keys() -> None:
    pending = deque([keyed(str(n)) for n in range(MAX_KEYED_WRITES + 1)])
    assert len(form_batch(pending, KEYS, "me", 1).commands) == MAX_KEYED_WRITES
    assert len(pending) == 1


def test_larger_request_than_a_flight_travels_alone() -> None:
    pending = deque([plain(size=5 * MAX_BATCH_BYTES), plain()])
    assert form_batch(pending, KEYS, "me", 1).commands[0][0].usage_count == 1
    assert len(pending) == 1


@given(
    st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 1 << 19), st.booleans()), max_size=30)
)
def test_every_group_flies_once_and_within_the_limits(said: list[tuple[int, int, bool]]) -> None:
    writes = [
        group([b"{}"] * count, IdempotencyKey(str(n), "body") if has_key else None, size)
        for n, (count, size, has_key) in enumerate(said)
    ]
    pending = deque(writes)
    flown: list[PendingWrite] = []
    while pending:
        batch = form_batch(pending, KEYS, "me", 1)
        aboard = list(batch.writes())
        assert aboard
        assert len(aboard) == 1 or (
            sum(each.count for each in aboard) <= MAX_BATCH_USAGES
            and sum(each.size for each in aboard) <= MAX_BATCH_BYTES
        )
        for command, those in batch.commands:
            assert command.usage_count == sum(each.count for each in those)
            assert (command.mode == "key") == (those[0].key is not None)
        flown += aboard
    assert sorted(map(id, flown)) == sorted(map(id, writes))


def lines_of(batch: InFlightBatch) -> list[bytes]:
    """Return what a batch would send, in order."""
    return [
        line
        for command, _ in batch.commands
        for line in decode_entry(
            parse_entry(
                b"%d-%d" % (command.usage_count, command.usage_count), [b"u", command.entry]
            )
        ).lines
    ]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.booleans()), min_size=1, max_size=9)
)
def test_what_has_expired_is_not_in_the_calls_that_are_sent_next(
    said: list[tuple[int, int, bool]],
) -> None:
    writes = [
        group([b'"%d"' % n] * count, IdempotencyKey(str(n), "body") if has_key else None)
        for n, (_, count, has_key) in enumerate(said)
    ]
    for each, (born, _, _) in zip(writes, said, strict=True):
        each.created_at = born
    batch = form_batch(deque(writes), KEYS, "me", 7)
    gone = batch.expire(2)
    assert sorted(map(id, gone)) == sorted(id(each) for each in writes if each.created_at < 2)
    assert batch.is_outdated == bool(gone)
    batch.rebuild(KEYS, "me", 8)
    left = [each for each in writes if each.created_at >= 2]
    keyed_first = sorted(left, key=lambda each: each.key is None)
    assert lines_of(batch) == [line for each in keyed_first for line in each.lines]
    assert all(
        command.dedup_token == "8" for command, _ in batch.commands if command.mode == "batch"
    )


@pytest.mark.parametrize("state", ["is_uncertain", "is_sending"])
def test_what_may_be_stored_stays_as_it_was_sent(state: str) -> None:
    told: list[Exception] = []

    class Waiting(Silent):
        def fail(self, error: Exception) -> None:
            told.append(error)

    writes = [Waiting([b"a"]), Waiting([b"b"])]
    writes[0].created_at = 0
    batch = form_batch(deque(writes), KEYS, "me", 7)
    setattr(batch, state, True)
    commands = list(batch.commands)
    assert batch.expire(1) == []
    assert batch.commands == commands
    assert not batch.is_outdated
    assert [type(each) for each in told] == [OutcomeUnknown]


def test_admission_refuses_what_is_too_much_and_takes_nothing_of_it() -> None:
    admission = AdmissionControl(max_usages=3, max_bytes=100)
    admission.admit(2, 50)
    for count, size in ((2, 1), (1, 51)):
        with pytest.raises(Overloaded):
            admission.admit(count, size)
    assert (admission.count, admission.bytes) == (2, 50)
    admission.admit(1, 50)
    admission.release([plain(1, size=50)])
    assert (admission.count, admission.bytes) == (2, 50)


async def test_answer_to_a_request_that_went_away_is_dropped() -> None:
    waiting = AwaitedWrite([b"{}"])
    waiting.future.cancel()
    waiting.complete(1)
    waiting.fail(Overloaded())
    assert waiting.future.cancelled()
