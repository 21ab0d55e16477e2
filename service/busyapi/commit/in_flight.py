"""A batch: what one committer has sent in one go and must settle before it sends more.

    groups ──take──> one call for all that have no key, one for each that has ──> replies

A batch is repeated until it is answered or its requests' time is up. Repeats are safe: the
script knows the committer's batch number, and a keyed call's key. A call that may be stored is only
ever repeated as it was. One that was refused is sent without the requests whose time is up, under a
number of its own: they were answered "not stored".
"""

import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from busyapi.commit.pending import PendingWrite
from busyapi.errors import BufferFull, IdempotencyKeyConflict, IdempotencyKeysFull, OutcomeUnknown
from busyapi.stream.connection import ServerError
from busyapi.stream.entry import encode_entry
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.session import CommitCommand, CommitResult

MAX_BATCH_USAGES = 10_000
MAX_BATCH_BYTES = 1 << 20
"""A batch stops growing here; one request may be larger and then travels alone."""
MAX_KEYED_WRITES = 256


class StoredCommand(NamedTuple):
    """A call that Redis has stored, and who is to be told so."""

    command: CommitCommand
    writes: list[PendingWrite]
    result: CommitResult


class InFlightBatch:
    """Calls with the groups that wait for them."""

    def __init__(self, commands: list[tuple[CommitCommand, list[PendingWrite]]]) -> None:
        self.commands = commands
        self.epoch = ""
        self.is_sending = False
        self.is_uncertain = False
        """A send went unanswered: each call may be stored already."""
        self.is_outdated = False
        """The calls must be made again before they are sent: they name what has left."""

    def writes(self) -> Iterator[PendingWrite]:
        """Go through every group that is not settled."""
        return (write for _, writes in self.commands for write in writes)

    @property
    def is_waiting(self) -> bool:
        """Whether any request still waits."""
        return any(write.is_waiting for write in self.writes())

    def mark_uncertain(self) -> None:
        """Record that replies were lost: what was sent may be stored."""
        self.is_uncertain = self.is_uncertain or self.is_sending

    def expire(self, before: float) -> list[PendingWrite]:
        """Give up what was born before a moment; return the groups that are certainly not stored.

        These have left the batch: they will be answered "not stored", so they must not be in what
        is sent next. The others stay in it: a call that may be stored is repeated as it was.
        """
        gone = [write for write in self.writes() if write.created_at < before]
        if self.is_uncertain or self.is_sending:
            for write in gone:
                write.fail(OutcomeUnknown())
            return []
        if gone:
            left = (
                (command, [each for each in writes if each.created_at >= before])
                for command, writes in self.commands
            )
            self.commands = [(command, writes) for command, writes in left if writes]
            self.is_outdated = True
        return gone

    def rebuild(self, keys: PartitionKeys, producer: str, number: int) -> None:
        """Make the calls again, of the groups that are left, under another number."""
        self.commands = _make_commands(list(self.writes()), keys, producer, number)
        self.is_outdated = False


def form_batch(
    pending: deque[PendingWrite], keys: PartitionKeys, producer: str, number: int
) -> InFlightBatch:
    """Move the oldest groups, at least one, from `pending` into a batch."""
    writes: list[PendingWrite] = []
    count = size = keyed = 0
    while pending and (
        not count
        or (
            count + pending[0].count <= MAX_BATCH_USAGES
            and size + pending[0].size <= MAX_BATCH_BYTES
            and keyed < MAX_KEYED_WRITES
        )
    ):
        write = pending.popleft()
        count += write.count
        size += write.size
        keyed += write.key is not None
        writes.append(write)
    return InFlightBatch(_make_commands(writes, keys, producer, number))


def _make_commands(
    writes: list[PendingWrite], keys: PartitionKeys, producer: str, number: int
) -> list[tuple[CommitCommand, list[PendingWrite]]]:
    keyed = [each for each in writes if each.key is not None]
    plain = [each for each in writes if each.key is None] if keyed else writes
    now = time.time_ns() // 1_000_000
    commands = [(_make_keyed_command(each, keys, now), [each]) for each in keyed]
    if plain:
        commands.append((_make_batch_command(plain, keys, now, producer, number), plain))
    return commands


def _make_batch_command(
    writes: list[PendingWrite], keys: PartitionKeys, now: int, producer: str, number: int
) -> CommitCommand:
    lines = [line for write in writes for line in write.lines]
    return CommitCommand(
        entry=encode_entry(lines, now),
        usage_count=len(lines),
        dedup_key=keys.committer(producer),
        mode="batch",
        dedup_token=str(number),
    )


def _make_keyed_command(write: PendingWrite, keys: PartitionKeys, now: int) -> CommitCommand:
    assert write.key is not None  # noqa: S101 - take() sorted them
    return CommitCommand(
        entry=encode_entry(list(write.lines), now),
        usage_count=write.count,
        dedup_key=keys.legacy_idempotency_key(write.key.legacy_digest),
        mode="key",
        dedup_token=write.key.body_digest,
        key_digest=write.key.key_digest,
        request_token=write.key.request_token,
        received_ms=now,
    )


def complete_writes(
    command: CommitCommand, writes: list[PendingWrite], result: CommitResult
) -> None:
    """Give each group of a stored call its last seq."""
    if command.mode == "key":
        # A keyed command has exactly one write.
        writes[0].complete(result.last, replayed=result.replayed)
        return
    seq = result.last - command.usage_count
    for write in writes:
        seq += write.count
        write.complete(seq)


class BatchOutcome(NamedTuple):
    """What became of a batch's calls."""

    stored: list[StoredCommand]
    refused: list[tuple[list[PendingWrite], Exception]]
    """For good: another try would fare no better."""
    retry_reason: ServerError | None
    """Why the calls that are left in the batch are to be repeated."""


def apply_replies(batch: InFlightBatch, replies: list[object]) -> BatchOutcome:
    """Sort the calls of a batch by their replies; those to be repeated stay in it."""
    found = BatchOutcome([], [], None)
    left = []
    trouble = None
    for (command, writes), reply in zip(batch.commands, replies, strict=True):
        if isinstance(reply, CommitResult):
            found.stored.append(StoredCommand(command, writes, reply))
        elif isinstance(reply, ServerError) and (
            error := classify_refusal(reply, batch.is_uncertain)
        ):
            found.refused.append((writes, error))
        else:
            left.append((command, writes))
            trouble = reply if isinstance(reply, ServerError) else trouble
    batch.commands = left
    return found._replace(retry_reason=trouble)


def classify_refusal(reply: ServerError, uncertain: bool) -> Exception | None:  # noqa: FBT001
    """Tell what a refusal means for the requests; None when another try may go better.

    After an unanswered send nothing may be called "not stored": that send may still be on its
    way to the server.
    """
    match reply.code:
        case "KEYREUSED":
            return IdempotencyKeyConflict()
        case "FULL" | "OOM" | "KEYS" | "KEYRIGHTS" if uncertain:
            return OutcomeUnknown()
        case "FULL":
            return BufferFull()
        case "OOM":
            return BufferFull("Redis's memory is full")
        case "KEYS":
            return IdempotencyKeysFull()
        case "KEYRIGHTS":
            return IdempotencyKeysFull(
                "Redis's user may not keep Idempotency-Keys: grant it +hlen and +hset"
            )
        case "STALE" | "KNOWN":
            return OutcomeUnknown()
        case "LANE" if uncertain:
            # What would have known it for a repeat is gone.
            return OutcomeUnknown()
    return None
