"""A committer: one task, one connection, one batch at a time.

    submit ──> queued ──form──> batch ──send──> replies ──> responses
                  ^                │ connection lost: retry with the same number
                  └──── expire ────┘ deadline: 503, with "stored": "unknown" if the usages may be
                                     stored; else "no", and they leave the batch before a retry

The committer sends all queued writes as soon as it has the replies to its previous batch. There is
no timer: while Redis fsyncs, the next batch grows. Requests never touch the connection, so a device
that hangs up cannot cancel a commit.
"""

import asyncio
from collections import deque
from time import monotonic

from busyapi.commit.backoff import Backoff
from busyapi.commit.committer_id import CommitterId
from busyapi.commit.connection_state import ConnectionState
from busyapi.commit.in_flight import InFlightBatch, StoredCommand, apply_replies, complete_writes
from busyapi.commit.pending import AdmissionControl, CommitObserver, PendingWrite
from busyapi.errors import DurabilityNotMet, NotSeeded, OutcomeUnknown, RedisUnavailable, Refused
from busyapi.failpoints import failpoint
from busyapi.ids import Seq
from busyapi.stream.connection import ServerError
from busyapi.stream.durability import DurabilityInspector
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.session import Session
from busyapi.strides import Strides

EXPIRY_INTERVAL_SECONDS = 0.1
RECHECK_INTERVAL_SECONDS = 5.0
"""How often an open connection is checked again: an operator may change the server's settings."""


class Committer:
    """Commits the writes of one partition. Call `submit` only in the loop that runs `run`."""

    def __init__(
        self,
        endpoint: Endpoint,
        partition: int,
        partitions: int,
        *,
        tier: str,
        min_replicas: int = 1,
        deadline: float,
        admission: AdmissionControl,
        observer: CommitObserver,
    ) -> None:
        self.partition = partition
        self._endpoint, self._partitions = endpoint, partitions
        key_names = endpoint.key_names(partition)
        self.inspector = DurabilityInspector(tier, key_names, min_replicas, endpoint.trust)
        self._deadline = deadline
        self._admission, self._observer = admission, observer
        self._id = CommitterId(key_names, endpoint.entry_version)
        self.highest_seq = Seq(0)  # the highest that Redis has given to this process
        self.strides: Strides | None = None  # of its partition, from the first connection on
        self._queued: deque[PendingWrite] = deque()
        self._batch: InFlightBatch | None = None
        self._stored_not_completed: list[StoredCommand] = []
        self.session: Session | None = None  # checked
        self._wake = asyncio.Event()
        self.connection_state = ConnectionState(partition)
        # Redis refused the last batch on a checked connection, and may refuse the next one too.
        self._was_refused = False
        self._backoff, self._next_check = Backoff(), 0.0

    # --- for requests, probes and metrics -----------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Return whether the committer has a checked connection."""
        return self.session is not None

    @property
    def last_error(self) -> Refused:
        """Return why the committer has no checked connection, or last had none."""
        return self.connection_state.last_error

    @property
    def durability_error(self) -> DurabilityNotMet | None:
        """Return why Redis does not meet the tier, if the last check failed for that."""
        error = self.last_error
        return error if self.session is None and isinstance(error, DurabilityNotMet) else None

    @property
    def queued_count(self) -> int:
        """Return how many writes are queued, without those in the batch."""
        return len(self._queued)

    def submit(self, write: PendingWrite) -> None:
        """Queue an admitted write."""
        self._queued.append(write)
        self._wake.set()

    # --- running ------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit until cancelled.

        Raises:
            PartitionMismatch: the settings disagree with Redis, so this process must not run.
        """
        expiry = asyncio.create_task(self._expire_periodically())
        try:
            while True:
                await self.run_once()
        finally:
            expiry.cancel()
            if self.session:
                await self.session.close()

    async def run_once(self) -> None:
        """Do one step: connect, wait for work, check the connection, or send batches."""
        if self.session is None:
            await self._connect()
        elif self._batch is None and not self._queued and monotonic() < self._next_check:
            self._wake.clear()
            await self._wake.wait()
        elif monotonic() >= self._next_check:
            await self._recheck(self.session)
        else:
            await self._send_batches(self.session)

    async def wait_drained(self) -> None:
        """Wait until every submitted write is answered."""
        while self._queued or self._batch or self._stored_not_completed:  # noqa: ASYNC110 - once in a process
            await asyncio.sleep(EXPIRY_INTERVAL_SECONDS / 10)

    def fail_remaining(self) -> None:
        """Answer all remaining writes, after the committer has stopped."""
        self._complete_stored()
        self.connection_state.mark_stopped()  # first: a request that fails below may submit again
        self._fail(list(self._queued), self.last_error)
        self._queued.clear()
        if self._batch:
            self._fail_batch(self._batch, OutcomeUnknown())

    async def _connect(self) -> None:
        try:
            session = await Session.open(
                self._endpoint, self.partition, self._partitions, self.inspector, self.highest_seq
            )
            await self._register(session)
        except (RedisUnavailable, NotSeeded, DurabilityNotMet) as error:
            self._mark_disconnected(error)
            await self._back_off()
            return
        self.session, self.strides = session, session.strides
        self._next_check = monotonic() + RECHECK_INTERVAL_SECONDS
        if (batch := self._batch) and not batch.may_be_sent_under(session.epoch):
            # Redis lost ids in the meantime, and with them the batch number. The old server may
            # have stored the batch: a retry could store the usages a second time.
            self._fail_batch(batch, OutcomeUnknown())
        # After a refusal, the retried batch shows whether Redis accepts writes again; without one
        # the next usage must show it, so new writes have to be admitted.
        if not self._was_refused or not (self._batch or self._queued):
            self._mark_recovered()

    async def _back_off(self) -> None:
        limit_is_low = self.connection_state.may_end_soon(was_refused=self._was_refused)
        await asyncio.sleep(self._backoff.next_seconds(limit_is_low=limit_is_low))

    def _mark_recovered(self) -> None:
        self.connection_state.mark_connected()
        self._was_refused = False
        self._backoff.reset()

    async def _recheck(self, session: Session) -> None:
        self._next_check = monotonic() + RECHECK_INTERVAL_SECONDS
        try:
            await session.recheck(self._partitions, self.highest_seq)
            # A committer that was idle for long would otherwise learn of a loss from a refusal.
            await self._register(session)
        except (RedisUnavailable, NotSeeded, DurabilityNotMet) as error:
            await self._disconnect(session, error)

    async def _register(self, session: Session) -> None:
        if await self._id.register(session) and (batch := self._batch):
            if batch.is_uncertain:
                # The server lost the batch number, and could not detect a retry.
                self._fail_batch(batch, OutcomeUnknown())
            else:
                batch.is_outdated = True

    async def _send_batches(self, session: Session) -> None:
        """Send a batch, and the following ones until one fails or no write is queued.

        The committer sends the next batch before it answers the stored writes, so that Redis
        fsyncs while the responses are written.
        """
        while True:
            batch = self._batch = self._batch or self._id.form_batch(self._queued)
            if not batch.is_uncertain:
                batch.epoch = session.epoch
            if batch.is_outdated:
                self._id.rebuild_batch(batch)
            started = monotonic()
            failpoint("api-before-commit")
            try:
                sent = session.send([command for command, _ in batch.commands], self.highest_seq)
                batch.is_sending = True
                if self._stored_not_completed:
                    await asyncio.sleep(0)  # uvloop writes at the end of an iteration, in any order
                    self._complete_stored()
                replies = await session.wait_replies(sent)
                if session.confirm_seconds is not None:
                    self._observer.record_confirmation(session.confirm_seconds)
                failpoint("api-after-commit")
            except RedisUnavailable as error:
                self._complete_stored()
                batch.mark_uncertain()
                await self._disconnect(session, error)
                break
            batch.is_sending = False
            refusal = self._apply_replies(batch, replies, monotonic() - started)
            if refusal:
                self._complete_stored()
                await self._handle_refusal(session, refusal)
                break
            if not self._queued or monotonic() > self._next_check:
                break
        self._complete_stored()
        batch.is_sending = False
        if not batch.is_waiting:
            self._fail_batch(batch, OutcomeUnknown())

    # --- replies ------------------------------------------------------------------------

    def _apply_replies(
        self, batch: InFlightBatch, replies: list[object], seconds: float
    ) -> ServerError | None:
        """Record the stored writes, fail the refused ones; return why to retry the rest."""
        outcome = apply_replies(batch, replies)
        for command, _, result in outcome.stored:
            self.highest_seq = Seq(max(self.highest_seq, result.last))
            # This process sent a retried batch before; another one may have sent the key before.
            is_own = not result.replayed or command.mode == "batch"
            self._observer.record_commit(command.usage_count if is_own else 0, seconds)
        self._stored_not_completed += outcome.stored
        for writes, error in outcome.refused:
            self._fail(writes, error)
        if outcome.retry_reason is None:
            self._batch = None
            self._mark_recovered()
        return outcome.retry_reason

    def _complete_stored(self) -> None:
        stored, self._stored_not_completed = self._stored_not_completed, []
        for command, writes, result in stored:
            complete_writes(command, writes, result)
            self._admission.release(writes)

    async def _handle_refusal(self, session: Session, refusal: ServerError) -> None:
        self._was_refused = True
        if "equal or smaller" in str(refusal):
            await session.revoke_epoch()
        await self._disconnect(session, RedisUnavailable(f"Redis refuses commits: {refusal.code}"))
        await self._back_off()

    def _fail(self, writes: list[PendingWrite], error: Exception) -> None:
        for write in writes:
            write.fail(error)
        self._admission.release(writes)

    def _fail_batch(self, batch: InFlightBatch, error: Exception) -> None:
        self._fail(list(batch.writes()), error)
        batch.commands, self._batch = [], None

    async def _disconnect(self, session: Session, error: Refused) -> None:
        await session.close()
        self.session = None
        self._mark_disconnected(error)

    def _mark_disconnected(self, error: Refused) -> None:
        self.connection_state.mark_disconnected(error)
        self._observer.record_disconnect(self.last_error)

    # --- deadlines ----------------------------------------------------------------------

    async def _expire_periodically(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL_SECONDS)
            now = monotonic()
            self.expire(now - self._deadline)
            if now > self._next_check:
                self._wake.set()

    def expire(self, before: float) -> None:
        """Fail every write that was created before a time of the monotonic clock."""
        while self._queued and self._queued[0].created_at < before:
            # It was never sent, so a retry is safe.
            self._fail([self._queued.popleft()], self.last_error)
        if batch := self._batch:
            self._fail(batch.expire(before), self.last_error)
            if not batch.is_sending and not batch.is_waiting:
                self._fail_batch(batch, OutcomeUnknown())
