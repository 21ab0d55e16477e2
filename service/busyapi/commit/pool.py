"""All committers of one process: which one takes a request."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from zlib import crc32

from busyapi.commit.committer import Committer
from busyapi.commit.pending import AdmissionControl, IdempotencyKey, PendingWrite
from busyapi.ids import Seq, UsageId, make_usage_id


class CommitterPool:
    """One committer a partition. `open`, `close`, and `submit` between them."""

    def __init__(self, committers: Sequence[Committer], admission: AdmissionControl) -> None:
        self.committers = committers
        self.admission = admission
        self._tasks: list[asyncio.Task[None]] = []
        self._next = 0

    def open(self, fatal: Callable[[BaseException], None]) -> None:
        """Start every committer; `fatal` is told when one may not run with these settings.

        The tasks are the loop's own: Sanic cancels those made with add_task at SIGTERM, while
        accepted requests still wait for them.
        """
        loop = asyncio.get_running_loop()
        for committer in self.committers:
            task = loop.create_task(committer.run(), name=f"committer-{committer.partition}")
            task.add_done_callback(partial(_on_committer_ended, committer, fatal))
            self._tasks.append(task)

    async def close(self, seconds: float) -> None:
        """Settle what is under way for up to `seconds`, then stop. May be called twice."""
        try:
            async with asyncio.timeout(seconds):
                for committer in self.committers:
                    await committer.wait_drained()
        except TimeoutError:
            pass  # what is left is answered by its deadline, or by the connection's end
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    @property
    def is_ready(self) -> bool:
        """Whether a usage could be committed now."""
        return any(committer.is_ready for committer in self.committers)

    def submit(self, write: PendingWrite) -> int:
        """Put one request's usages in line; give the partition.

        Raises:
            Refused: they were not taken; nothing will be stored.
        """
        committer = self.committers[0] if len(self.committers) == 1 else self._pick(write.key)
        if committer.connection_state.refuses_writes:
            # Not by way of a local: frame and exception would keep each other, and the request.
            raise committer.connection_state.last_error
        self.admission.admit(write.count, write.size)
        committer.submit(write)
        return committer.partition

    def make_ids(self, last: int, count: int, partition: int) -> list[UsageId]:
        """Give the ids of the `count` usages that end at a seq."""
        total = len(self.committers)
        first = make_usage_id(Seq(last - count + 1), partition, total)
        return [*range(first, first + count * total, total)]

    def _pick(self, key: IdempotencyKey | None) -> Committer:
        if key is not None:
            # A key must meet its earlier self, also one that 0.2.0 stored.
            return self.committers[crc32(key.legacy_digest.encode()) % len(self.committers)]
        self._next = (self._next + 1) % len(self.committers)
        turned = [*self.committers[self._next :], *self.committers[: self._next]]
        return min(turned, key=lambda committer: (not committer.is_ready, committer.pending_count))


def _on_committer_ended(
    committer: Committer, fatal: Callable[[BaseException], None], done: asyncio.Task[None]
) -> None:
    # Its sweeper has gone with it: nobody else settles what waits.
    committer.fail_remaining()
    if not done.cancelled() and (error := done.exception()):
        fatal(error)
