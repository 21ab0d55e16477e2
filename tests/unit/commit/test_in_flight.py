"""The writes that one batch takes, and those that it leaves for the next."""

from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busyapi.commit.in_flight import (
    MAX_COMMIT_BATCH_BYTES,
    MAX_COMMIT_BATCH_USAGES,
    MAX_KEYED_WRITES,
    BatchIdentity,
    InFlightBatch,
    form_batch,
)
from busyapi.commit.pending import AdmissionControl, AwaitedWrite, IdempotencyKey, PendingWrite
from busyapi.errors import OutcomeUnknown, Overloaded
from busyapi.stamp import Stamp, encode_stamp
from busyapi.stream.entry import decode_entry, parse_entry
from busyapi.stream.keys import PartitionKeys

KEYS = PartitionKeys(0)
IDENTITY = BatchIdentity(KEYS, "me", 1)


class UnawaitedWrite(PendingWrite):
    """A write that no client waits for."""

    is_waiting = False

    def complete(self, last: int, *, replayed: bool = False) -> None:
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        raise NotImplementedError


def make_write(
    lines: Sequence[bytes], key: IdempotencyKey | None = None, size: int | None = None
) -> PendingWrite:
    write = UnawaitedWrite(lines, key)
    write.size = write.size if size is None else size
    return write


def make_plain_write(count: int = 1, size: int | None = None) -> PendingWrite:
    return make_write([b"{}"] * count, size=size)


def make_keyed_write(name: str) -> PendingWrite:
    return make_write([b"{}"], IdempotencyKey(name, "body", f"old-{name}"))


def test_waiting_writes_become_one_command_in_their_order() -> None:
    queued = deque([make_write([b"a"]), make_write([b"b", b"c"]), make_write([b"d"])])
    batch = form_batch(queued, BatchIdentity(KEYS, "me", 7))
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
    assert [write.count for write in writes] == [1, 2, 1]
    assert not queued


def test_each_key_is_a_separate_command() -> None:
    queued = deque(
        [make_plain_write(), make_keyed_write("k1"), make_plain_write(2), make_keyed_write("k2")]
    )
    commands = [command for command, _ in form_batch(queued, IDENTITY).commands]
    assert sorted(
        (command.mode, command.usage_count, command.dedup_key) for command in commands
    ) == [
        ("batch", 3, KEYS.committer("me")),
        ("key", 1, KEYS.legacy_idempotency_key("old-k1")),
        ("key", 1, KEYS.legacy_idempotency_key("old-k2")),
    ]


def test_batch_ends_at_the_maximum_of_usages() -> None:
    queued = deque(
        [make_plain_write(MAX_COMMIT_BATCH_USAGES - 1), make_plain_write(), make_plain_write()]
    )
    assert form_batch(queued, IDENTITY).commands[0][0].usage_count == MAX_COMMIT_BATCH_USAGES
    assert len(queued) == 1


def test_batch_ends_at_the_maximum_of_bytes() -> None:
    queued = deque(
        [
            make_plain_write(size=MAX_COMMIT_BATCH_BYTES - 1),
            make_plain_write(size=1),
            make_plain_write(size=1),
        ]
    )
    assert form_batch(queued, IDENTITY).commands[0][0].usage_count == 2
    assert len(queued) == 1


def test_batch_ends_at_the_maximum_of_keys() -> None:
    queued = deque([make_keyed_write(str(n)) for n in range(MAX_KEYED_WRITES + 1)])
    assert len(form_batch(queued, IDENTITY).commands) == MAX_KEYED_WRITES
    assert len(queued) == 1


def test_writes_without_a_key_do_not_count_as_keys() -> None:
    plain = [make_plain_write() for _ in range(2 * MAX_KEYED_WRITES)]
    queued = deque([*plain, make_keyed_write("a"), *plain])
    batch = form_batch(queued, BatchIdentity(KEYS, "me", 7))
    assert not queued
    assert sorted(len(writes) for _, writes in batch.commands) == [1, 4 * MAX_KEYED_WRITES]


def test_request_larger_than_a_batch_is_sent_alone() -> None:
    queued = deque([make_plain_write(size=5 * MAX_COMMIT_BATCH_BYTES), make_plain_write()])
    assert form_batch(queued, IDENTITY).commands[0][0].usage_count == 1
    assert len(queued) == 1


@given(
    st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 1 << 19), st.booleans()), max_size=30)
)
def test_every_write_is_sent_once_and_within_the_limits(cases: list[tuple[int, int, bool]]) -> None:
    writes = [
        make_write([b"{}"] * count, IdempotencyKey(str(n), "body") if has_key else None, size)
        for n, (count, size, has_key) in enumerate(cases)
    ]
    queued = deque(writes)
    sent: list[PendingWrite] = []
    while queued:
        batch = form_batch(queued, IDENTITY)
        batch_writes = list(batch.writes())
        assert batch_writes
        assert len(batch_writes) == 1 or (
            sum(write.count for write in batch_writes) <= MAX_COMMIT_BATCH_USAGES
            and sum(write.size for write in batch_writes) <= MAX_COMMIT_BATCH_BYTES
        )
        for command, command_writes in batch.commands:
            assert command.usage_count == sum(write.count for write in command_writes)
            assert (command.mode == "key") == (command_writes[0].key is not None)
        sent += batch_writes
    assert sorted(map(id, sent)) == sorted(map(id, writes))


def list_lines(batch: InFlightBatch) -> list[bytes]:
    """Return the lines that a batch would send, in order."""
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
def test_expired_writes_are_not_in_the_next_commands(
    cases: list[tuple[int, int, bool]],
) -> None:
    writes = [
        make_write([b'"%d"' % n] * count, IdempotencyKey(str(n), "body") if has_key else None)
        for n, (_, count, has_key) in enumerate(cases)
    ]
    for write, (created_at, _, _) in zip(writes, cases, strict=True):
        write.created_at = created_at
    batch = form_batch(deque(writes), BatchIdentity(KEYS, "me", 7))
    expired = batch.expire(2)
    assert sorted(map(id, expired)) == sorted(id(write) for write in writes if write.created_at < 2)
    assert batch.is_outdated == bool(expired)
    batch.rebuild(BatchIdentity(KEYS, "me", 8))
    remaining = [write for write in writes if write.created_at >= 2]
    keyed_first = sorted(remaining, key=lambda write: write.key is None)
    assert list_lines(batch) == [line for write in keyed_first for line in write.lines]
    assert all(
        command.dedup_token == "8" for command, _ in batch.commands if command.mode == "batch"
    )


@pytest.mark.parametrize("state", ["is_uncertain", "is_sending"])
def test_commands_that_may_be_stored_stay_as_they_were_sent(state: str) -> None:
    errors: list[Exception] = []

    class Waiting(UnawaitedWrite):
        def fail(self, error: Exception) -> None:
            errors.append(error)

    writes = [Waiting([b"a"]), Waiting([b"b"])]
    writes[0].created_at = 0
    batch = form_batch(deque(writes), BatchIdentity(KEYS, "me", 7))
    setattr(batch, state, True)
    commands = list(batch.commands)
    assert batch.expire(1) == []
    assert batch.commands == commands
    assert not batch.is_outdated
    assert [type(error) for error in errors] == [OutcomeUnknown]


def test_admission_refuses_a_write_above_the_limit_and_counts_none_of_it() -> None:
    admission = AdmissionControl(max_usages=3, max_bytes=100)
    admission.admit(2, 50)
    for count, size in ((2, 1), (1, 51)):
        with pytest.raises(Overloaded):
            admission.admit(count, size)
    assert (admission.count, admission.bytes) == (2, 50)
    admission.admit(1, 50)
    admission.release([make_plain_write(1, size=50)])
    assert (admission.count, admission.bytes) == (2, 50)


async def test_reply_to_a_cancelled_request_is_dropped() -> None:
    waiting = AwaitedWrite([b"{}"])
    waiting.future.cancel()
    waiting.complete(1)
    waiting.fail(Overloaded())
    assert waiting.future.cancelled()


# --- stamps ---------------------------------------------------------------------------------

STAMP = encode_stamp(Stamp("8nC3hQ2vXr0aLw_K", "clinic-7"))
STAMPING = BatchIdentity(KEYS, "me", 1, entry_version=2)


def make_stamped_write(line: bytes, key: IdempotencyKey | None = None) -> PendingWrite:
    return UnawaitedWrite([line + STAMP], key, is_stamped=True)


def test_batch_with_a_stamped_usage_is_of_version_2_and_each_line_keeps_its_stamp() -> None:
    writes = [make_plain_write(), make_stamped_write(b'{"a":1}'), make_plain_write(2)]
    ((command, _),) = form_batch(deque(writes), STAMPING).commands
    assert command.entry.startswith(b"2 ")
    assert decode_entry(parse_entry(b"4-4", [b"u", command.entry])).lines == [
        b"{}",
        b'{"a":1}' + STAMP,
        *[b"{}"] * 2,
    ]


def test_batch_without_a_stamped_usage_is_of_version_1() -> None:
    for identity in (IDENTITY, STAMPING):
        ((command, _),) = form_batch(deque([make_plain_write()] * 3), identity).commands
        assert command.entry.startswith(b"1 ")


def test_keyed_command_is_of_the_version_that_its_own_usages_need() -> None:
    writes = [make_keyed_write("a"), make_stamped_write(b"{}", IdempotencyKey("b", "body", "old"))]
    batch = form_batch(deque([*writes, make_plain_write()]), STAMPING)
    assert [command.entry[:2] for command, _ in batch.commands] == [b"1 ", b"2 ", b"1 "]


def test_rebuilt_batch_is_of_version_1_when_its_stamped_usages_have_expired() -> None:
    writes = [make_stamped_write(b"{}"), make_plain_write()]
    writes[1].created_at += 10
    batch = form_batch(deque(writes), STAMPING)
    assert batch.expire(writes[1].created_at - 5) == writes[:1]
    batch.rebuild(STAMPING._replace(number=2))
    assert [command.entry[:2] for command, _ in batch.commands] == [b"1 "]


def test_stamp_counts_for_the_size_of_a_write() -> None:
    assert make_stamped_write(b"{}").size == 2 + len(STAMP)
