"""The committers of one process, and the choice of one for each request."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from zlib import crc32

from busyapi.commit.committer import Committer
from busyapi.commit.pending import AdmissionControl, IdempotencyKey, PendingWrite
from busyapi.ids import UsageId
from busyapi.strides import Strides


class CommitterPool:
    """One committer for each partition. Call `submit` between `open` and `close`."""

    def __init__(self, committers: Sequence[Committer], admission: AdmissionControl) -> None:
        self.committers = committers
        self.admission = admission
        self._tasks: list[asyncio.Task[None]] = []
        self._next = 0

    def open(self, fatal: Callable[[BaseException], None]) -> None:
        """Start every committer, and call `fatal` if one must not run with these settings.

        The loop owns the tasks: Sanic would cancel those made with add_task at SIGTERM, while
        accepted requests still wait for them.
        """
        loop = asyncio.get_running_loop()
        for committer in self.committers:
            task = loop.create_task(committer.run(), name=f"committer-{committer.partition}")
            task.add_done_callback(partial(_on_committer_ended, committer, fatal))
            self._tasks.append(task)

    async def close(self, seconds: float) -> None:
        """Wait up to `seconds` for all submitted writes, then stop. A second call has no effect."""
        try:
            async with asyncio.timeout(seconds):
                for committer in self.committers:
                    await committer.wait_drained()
        except TimeoutError:
            pass  # the other writes are answered when their committer ends
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    @property
    def is_ready(self) -> bool:
        """Return whether a committer is ready to commit a usage."""
        return any(committer.is_ready for committer in self.committers)

    def submit(self, write: PendingWrite) -> None:
        """Queue one request's usages, and set their partition.

        Raises:
            Refused: they were not taken; nothing will be stored.
        """
        committer = self.committers[0] if len(self.committers) == 1 else self._pick(write.key)
        if committer.connection_state.refuses_writes:
            # Not by way of a local: frame and exception would keep each other, and the request.
            raise committer.connection_state.last_error
        self.admission.admit(write.count, write.size)
        write.partition = committer.partition
        committer.submit(write)

    def make_ids(self, last: int, count: int, partition: int) -> list[UsageId]:
        """Return the ids of the `count` usages that end at a seq."""
        strides = self._strides_of(partition)
        first, stride = strides.id_of(last - count + 1, partition), strides.at(last)
        return [*range(first, first + count * stride, stride)]

    def make_id(self, last: int, partition: int) -> UsageId:
        """Return the id of a seq that a committer has stored."""
        return self._strides_of(partition).id_of(last, partition)

    def _strides_of(self, partition: int) -> Strides:
        strides = self.committers[partition].strides
        assert strides  # noqa: S101 - it has been connected
        return strides

    @property
    def _base(self) -> int:
        """The number of partitions at install, which any committer may have read."""
        for committer in self.committers:
            if committer.strides:
                return committer.strides.base
        raise self.committers[0].last_error

    def _pick(self, key: IdempotencyKey | None) -> Committer:
        if key is not None:
            # A key must get to the partition that stored it before, also if that was 0.2.0, and
            # if the number of partitions has changed since.
            return self.committers[crc32(key.legacy_digest.encode()) % self._base]
        self._next = (self._next + 1) % len(self.committers)
        candidates = [*self.committers[self._next :], *self.committers[: self._next]]
        # If none is ready, one that is back in a moment lets the request wait; others refuse it.
        return min(
            candidates,
            key=lambda committer: (
                not committer.is_ready,
                not committer.is_ready and committer.connection_state.refuses_writes,
                committer.queued_count,
            ),
        )


def _on_committer_ended(
    committer: Committer, fatal: Callable[[BaseException], None], done: asyncio.Task[None]
) -> None:
    # Its expiry task has ended with it, so this is the only place that answers its writes.
    committer.fail_remaining()
    if not done.cancelled() and (error := done.exception()):
        fatal(error)
