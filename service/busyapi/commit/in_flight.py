"""A batch: the commands that a committer sends together. It sends no others before the replies.

    writes ──form_batch──> one command for all without a key, one for each with a key ──> replies

A batch is retried until it is answered or its writes expire. Retries are safe: the script knows
the committer's batch number, and the key of a keyed command. A command that may be stored is only
retried unchanged. A command that was refused is sent again with a new number and without its
expired writes, which were answered "not stored".
"""

import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from busyapi.commit.pending import PendingWrite
from busyapi.errors import BufferFull, IdempotencyKeyConflict, IdempotencyKeysFull, OutcomeUnknown
from busyapi.stream.connection import ServerError
from busyapi.stream.entry import encode_entry, encode_stamped_entry
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.session import CommitCommand, CommitResult
from busyapi.stream.state import is_same_history

MAX_COMMIT_BATCH_USAGES = 10_000
MAX_COMMIT_BATCH_BYTES = 1 << 20
"""The size limit of a batch. A larger request is a batch of its own."""
MAX_KEYED_WRITES = 256


class StoredCommand(NamedTuple):
    """A command that Redis has stored, and the writes to answer."""

    command: CommitCommand
    writes: list[PendingWrite]
    result: CommitResult


class BatchIdentity(NamedTuple):
    """How a batch is recognized in Redis, and which entries it may have."""

    key_names: PartitionKeys
    committer_id: str
    number: int
    entry_version: int = 1
    """The highest version of entries that this process writes."""


class InFlightBatch:
    """Commands, each with its writes."""

    def __init__(self, commands: list[tuple[CommitCommand, list[PendingWrite]]]) -> None:
        self.commands = commands
        self.epoch = ""
        self.is_sending = False
        self.is_uncertain = False
        """A send got no reply, so each command may be stored already."""
        self.is_outdated = False
        """The commands must be rebuilt before they are sent: they hold writes that have left."""

    def writes(self) -> Iterator[PendingWrite]:
        """Yield every write that is not answered."""
        return (write for _, writes in self.commands for write in writes)

    @property
    def is_waiting(self) -> bool:
        """Return whether any request still waits."""
        return any(write.is_waiting for write in self.writes())

    def may_be_sent_under(self, epoch: str) -> bool:
        """Return whether the server detects a retry, if this batch may be stored already."""
        return not self.is_uncertain or is_same_history(self.epoch, epoch)

    def mark_uncertain(self) -> None:
        """Record that replies were lost, so what was sent may be stored."""
        self.is_uncertain = self.is_uncertain or self.is_sending

    def expire(self, before: float) -> list[PendingWrite]:
        """Expire the writes created before a time; return those that are certainly not stored.

        The returned writes leave the batch: they get the response "not stored", so they must not
        be in what is sent next. If the batch may be stored, expired writes get "unknown" here and
        stay in it, because such a command is only retried unchanged.
        """
        expired = [write for write in self.writes() if write.created_at < before]
        if self.is_uncertain or self.is_sending:
            for write in expired:
                write.fail(OutcomeUnknown())
            return []
        if expired:
            remaining = (
                (command, [write for write in writes if write.created_at >= before])
                for command, writes in self.commands
            )
            self.commands = [(command, writes) for command, writes in remaining if writes]
            self.is_outdated = True
        return expired

    def rebuild(self, identity: BatchIdentity) -> None:
        """Make the commands again, for the remaining writes and with another number."""
        self.commands = _make_commands(list(self.writes()), identity)
        self.is_outdated = False


def form_batch(queued: deque[PendingWrite], identity: BatchIdentity) -> InFlightBatch:
    """Move the oldest writes, at least one, from `queued` into a batch."""
    writes: list[PendingWrite] = []
    count = size = keyed = 0
    for write in queued:
        count += write.count
        size += write.size
        if writes and (count > MAX_COMMIT_BATCH_USAGES or size > MAX_COMMIT_BATCH_BYTES):
            break
        writes.append(write)
        if write.key is not None:
            keyed += 1
            if keyed == MAX_KEYED_WRITES:
                break
    for _ in writes:
        queued.popleft()
    return InFlightBatch(_make_commands(writes, identity))


def _make_commands(
    writes: list[PendingWrite], identity: BatchIdentity
) -> list[tuple[CommitCommand, list[PendingWrite]]]:
    keyed = [write for write in writes if write.key is not None]
    plain = [write for write in writes if write.key is None] if keyed else writes
    now = time.time_ns() // 1_000_000
    commands = [(_make_keyed_command(write, identity.key_names, now), [write]) for write in keyed]
    if plain:
        commands.append((_make_batch_command(plain, identity, now), plain))
    return commands


def _make_batch_command(
    writes: list[PendingWrite], identity: BatchIdentity, now: int
) -> CommitCommand:
    lines = [line for write in writes for line in write.lines]
    # A process that makes no stamps need not look at each write.
    is_stamped = identity.entry_version > 1 and any(write.is_stamped for write in writes)
    return CommitCommand(
        entry=encode_stamped_entry(lines, now) if is_stamped else encode_entry(lines, now),
        usage_count=len(lines),
        dedup_key=identity.key_names.committer(identity.committer_id),
        mode="batch",
        dedup_token=str(identity.number),
    )


def _make_keyed_command(write: PendingWrite, key_names: PartitionKeys, now: int) -> CommitCommand:
    assert write.key is not None  # noqa: S101 - _make_commands sorted them
    encode = encode_stamped_entry if write.is_stamped else encode_entry
    return CommitCommand(
        entry=encode(list(write.lines), now),
        usage_count=write.count,
        dedup_key=key_names.legacy_idempotency_key(write.key.legacy_digest),
        mode="key",
        dedup_token=write.key.body_digest,
        key_digest=write.key.key_digest,
        request_token=write.key.request_token,
        received_ms=now,
    )


def complete_writes(
    command: CommitCommand, writes: list[PendingWrite], result: CommitResult
) -> None:
    """Complete each write of a stored command with its last seq."""
    if command.mode == "key":
        # A keyed command has exactly one write.
        writes[0].complete(result.last, replayed=result.replayed)
        return
    seq = result.last - command.usage_count
    for write in writes:
        seq += write.count
        write.complete(seq)


class BatchOutcome(NamedTuple):
    """The outcome of a batch's commands."""

    stored: list[StoredCommand]
    refused: list[tuple[list[PendingWrite], Exception]]
    """Refused for good: a retry would get the same reply."""
    retry_reason: ServerError | None
    """Why the commands that stay in the batch must be retried; None if there are no such ones."""


def apply_replies(batch: InFlightBatch, replies: list[object]) -> BatchOutcome:
    """Sort the commands of a batch by their replies; those to be retried stay in it."""
    outcome = BatchOutcome([], [], None)
    remaining = []
    retry_reason = None
    for (command, writes), reply in zip(batch.commands, replies, strict=True):
        if isinstance(reply, CommitResult):
            outcome.stored.append(StoredCommand(command, writes, reply))
        elif isinstance(reply, ServerError) and (
            error := classify_refusal(reply, batch.is_uncertain)
        ):
            outcome.refused.append((writes, error))
        else:
            remaining.append((command, writes))
            retry_reason = reply if isinstance(reply, ServerError) else retry_reason
    batch.commands = remaining
    return outcome._replace(retry_reason=retry_reason)


def classify_refusal(reply: ServerError, uncertain: bool) -> Exception | None:  # noqa: FBT001
    """Return the error that a refusal means for the requests; None if a retry may succeed.

    After an unanswered send, no error may mean "not stored": the server may still receive that
    send.
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
                "Redis's user may not store Idempotency-Keys: grant it +hlen and +hset"
            )
        case "STALE" | "KNOWN":
            return OutcomeUnknown()
        case "UNREGISTERED" if uncertain:
            # The server lost the batch number, and could not have detected a retry.
            return OutcomeUnknown()
    return None
