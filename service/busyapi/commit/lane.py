"""A lane: one task, one connection, one flight at a time.

    submit ──> pending ──take──> flight ──send──> replies ──> answers
                  ^                 │ connection lost: repeat under the same number
                  └ expire ─────────┘ time is up: 503, "unknown" if it may be stored, else "no",
                                      and it leaves the flight before that is sent again

The lane sends what is pending as soon as its previous reply is in. There is no timer: while
Redis fsyncs, the next batch grows. Requests never touch the connection, so a device that hangs
up cannot cancel a commit under way.
"""

import asyncio
import random
from collections import deque
from time import monotonic

from busyapi.commit.batch import Admission, Group, Observer
from busyapi.commit.flight import Flight, Stored, answer, settle
from busyapi.commit.producer import Producer
from busyapi.commit.standing import Standing
from busyapi.errors import NotSeeded, RedisAway, Refused, StoredUnknown, TooWeak
from busyapi.failpoints import failpoint
from busyapi.ids import Seq
from busyapi.stream.durability import Inspector
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.session import Session
from busyapi.stream.wire import ServerError

SWEEP_SECONDS = 0.1
RECHECK_SECONDS = 5.0
"""How often an open connection is checked again: its settings may be made weaker."""
RETRY_SECONDS = (0.05, 1.0)


class Lane:
    """Commits to one partition. `run` is its life; `submit` is safe from the same loop only."""

    def __init__(
        self,
        endpoint: Endpoint,
        partition: int,
        partitions: int,
        *,
        tier: str,
        replicas: int = 1,
        deadline: float,
        admission: Admission,
        observer: Observer,
    ) -> None:
        self.partition = partition
        self._endpoint = endpoint
        self._partitions = partitions
        self._inspector = Inspector(tier, endpoint.keys(partition), replicas)
        self._deadline = deadline
        self._admission = admission
        self._observer = observer
        self._producer = Producer(endpoint.keys(partition))
        self.highest = Seq(0)  # the largest that this process was given
        self._pending: deque[Group] = deque()
        self._flight: Flight | None = None
        self._stored: list[Stored] = []
        self._session: Session | None = None
        self._work = asyncio.Event()
        self.standing = Standing(partition)
        # The last flight was refused on a checked connection: another may fare no better.
        self._refused = False
        self._backoff = RETRY_SECONDS[0]
        self._next_check = 0.0

    # --- for requests -------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the lane has a checked connection."""
        return self._session is not None

    @property
    def trouble(self) -> Refused:
        """Why the lane has no checked connection, or had none the last time."""
        return self.standing.trouble

    @property
    def weak(self) -> TooWeak | None:
        """What makes Redis weaker than the tier, as of the last try."""
        trouble = self.trouble
        return trouble if self._session is None and isinstance(trouble, TooWeak) else None

    @property
    def waiting(self) -> int:
        """How many requests wait, the flight left out."""
        return len(self._pending)

    def submit(self, group: Group) -> None:
        """Put an admitted group in line."""
        self._pending.append(group)
        self._work.set()

    # --- its life -----------------------------------------------------------------------

    async def run(self) -> None:
        """Commit until cancelled.

        Raises:
            PartitionMismatch: this process must not run with these settings.
        """
        sweeper = asyncio.create_task(self._sweep())
        try:
            while True:
                await self.turn()
        finally:
            sweeper.cancel()
            if self._session:
                await self._session.close()

    async def turn(self) -> None:
        """Do one thing: connect, wait for work, or send a flight once."""
        if self._session is None:
            await self._connect()
        elif self._flight is None and not self._pending and monotonic() < self._next_check:
            self._work.clear()
            await self._work.wait()
        elif monotonic() >= self._next_check:
            await self._recheck(self._session)
        else:
            await self._send(self._session)

    async def drained(self) -> None:
        """Wait until every submitted group has been settled."""
        while self._pending or self._flight or self._stored:  # noqa: ASYNC110 - once in a life
            await asyncio.sleep(SWEEP_SECONDS / 10)

    def abandon(self) -> None:
        """Settle what is left when the lane has stopped: nobody else will."""
        self._answer_stored()
        self.standing.ended()  # before anybody is told, who may then submit again
        self._fail(list(self._pending), self.trouble)
        self._pending.clear()
        if self._flight:
            self._settle_all(self._flight, StoredUnknown())

    async def _connect(self) -> None:
        try:
            session = await Session.open(
                self._endpoint, self.partition, self._partitions, self._inspector, self.highest
            )
            await self._introduce(session)
        except (RedisAway, NotSeeded, TooWeak) as error:
            self._lose(error)
            await self._pause()
            return
        self._session = session
        self._next_check = monotonic() + RECHECK_SECONDS
        if (flight := self._flight) and flight.uncertain and flight.epoch != session.epoch:
            # Ids were lost in between, and with them the memory of our batch number. The old
            # server may have stored the flight, and the flusher archived it: a repeat could be
            # a second line.
            self._settle_all(flight, StoredUnknown())
        # What was refused tells whether it is taken now. When all of it was given up meanwhile, the
        # next usage must: while the lane is in trouble none is let in.
        if not self._refused or not (self._flight or self._pending):
            self._recovered()

    async def _pause(self) -> None:
        await asyncio.sleep(self._backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        self._backoff = min(self._backoff * 2, RETRY_SECONDS[1])

    def _recovered(self) -> None:
        self.standing.recovered()
        self._refused = False
        self._backoff = RETRY_SECONDS[0]

    async def _recheck(self, session: Session) -> None:
        self._next_check = monotonic() + RECHECK_SECONDS
        try:
            await session.recheck(self._partitions, self.highest)
            # So that a lane that was idle for long learns it now, and not by a refusal.
            await self._introduce(session)
        except (RedisAway, NotSeeded, TooWeak) as error:
            await self._drop(session, error)

    async def _introduce(self, session: Session) -> None:
        if await self._producer.introduce(session) and (flight := self._flight):
            if flight.uncertain:
                # What would have known it for a repeat is gone.
                self._settle_all(flight, StoredUnknown())
            else:
                flight.outdated = True

    async def _send(self, session: Session) -> None:
        """Send a flight, and the ones behind it as long as all goes well.

        What is stored is answered when the next flight has been sent, so that Redis syncs its
        disk while answers are written.
        """
        while True:
            flight = self._flight = self._flight or self._producer.take(self._pending)
            if not flight.uncertain:
                flight.epoch = session.epoch
            if flight.outdated:
                self._producer.renew(flight)
            started = monotonic()
            failpoint("api-before-commit")
            try:
                sent = session.send([call for call, _ in flight.calls], self.highest)
                flight.sending = True
                if self._stored:
                    await asyncio.sleep(0)  # uvloop writes at the end of a turn, and in any order
                    self._answer_stored()
                replies = await session.replies(sent)
                failpoint("api-after-commit")
            except RedisAway as error:
                self._answer_stored()
                flight.uncertain = flight.uncertain or flight.sending
                await self._drop(session, error)
                break
            flight.sending = False
            trouble = self._settle(flight, replies, monotonic() - started)
            if trouble:
                self._answer_stored()
                await self._refuse(session, trouble)
                break
            if not self._pending or monotonic() > self._next_check:
                break
        self._answer_stored()
        flight.sending = False
        if not flight.wanted:
            self._settle_all(flight, StoredUnknown())

    # --- settling -----------------------------------------------------------------------

    def _settle(self, flight: Flight, replies: list[object], seconds: float) -> ServerError | None:
        """Note what is stored, fail what is refused; give why the rest must be repeated."""
        found = settle(flight, replies)
        for call, _, reply in found.stored:
            self.highest = Seq(max(self.highest, abs(reply)))
            # A repeated batch is our own, a repeated key may be another process's.
            ours = reply > 0 or call.mode == "batch"
            self._observer.committed(call.usages if ours else 0, seconds)
        self._stored += found.stored
        for groups, error in found.refused:
            self._fail(groups, error)
        if found.trouble is None:
            self._flight = None
            self._recovered()
        return found.trouble

    def _answer_stored(self) -> None:
        stored, self._stored = self._stored, []
        for call, groups, reply in stored:
            answer(call, groups, reply)
            self._admission.leave(groups)

    async def _refuse(self, session: Session, trouble: ServerError) -> None:
        self._refused = True
        if "equal or smaller" in str(trouble):
            await session.give_up_epoch()
        await self._drop(session, RedisAway(f"Redis refuses commits: {trouble.code}"))
        await self._pause()

    def _fail(self, groups: list[Group], error: Exception) -> None:
        for group in groups:
            group.fail(error)
        self._admission.leave(groups)

    def _settle_all(self, flight: Flight, error: Exception) -> None:
        self._fail(list(flight.groups()), error)
        flight.calls = []
        self._flight = None

    async def _drop(self, session: Session, error: Refused) -> None:
        await session.close()
        self._session = None
        self._lose(error)

    def _lose(self, error: Refused) -> None:
        self.standing.lost(error)
        self._observer.reconnecting(error)

    # --- deadlines ----------------------------------------------------------------------

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = monotonic()
            self.expire(now - self._deadline)
            if now > self._next_check:
                self._work.set()

    def expire(self, before: float) -> None:
        """Give up every request that was born before a moment of the monotonic clock."""
        while self._pending and self._pending[0].born < before:
            # Never sent: a retry is safe.
            self._fail([self._pending.popleft()], self.trouble)
        if flight := self._flight:
            self._fail(flight.expire(before), self.trouble)
            if not flight.sending and not flight.wanted:
                self._settle_all(flight, StoredUnknown())
