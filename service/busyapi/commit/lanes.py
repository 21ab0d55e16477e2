"""All lanes of one process: which one takes a request."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from zlib import crc32

from busyapi.commit.batch import Admission, Group, Key
from busyapi.commit.lane import Lane
from busyapi.ids import Seq, UsageId, usage_id


class Lanes:
    """One lane a partition. `open`, `close`, and `submit` between them."""

    def __init__(self, lanes: Sequence[Lane], admission: Admission) -> None:
        self.lanes = lanes
        self.admission = admission
        self._tasks: list[asyncio.Task[None]] = []
        self._turn = 0

    def open(self, fatal: Callable[[BaseException], None]) -> None:
        """Start every lane; `fatal` is told when one may not run with these settings.

        The tasks are the loop's own: Sanic cancels those made with add_task at SIGTERM, while
        accepted requests still wait for them.
        """
        loop = asyncio.get_running_loop()
        for lane in self.lanes:
            task = loop.create_task(lane.run(), name=f"lane-{lane.partition}")
            task.add_done_callback(partial(_ended, lane, fatal))
            self._tasks.append(task)

    async def close(self, seconds: float) -> None:
        """Settle what is under way for up to `seconds`, then stop. May be called twice."""
        try:
            async with asyncio.timeout(seconds):
                for lane in self.lanes:
                    await lane.drained()
        except TimeoutError:
            pass  # what is left is answered by its deadline, or by the connection's end
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    @property
    def ready(self) -> bool:
        """Whether a usage could be committed now."""
        return any(lane.ready for lane in self.lanes)

    def submit(self, group: Group) -> int:
        """Put one request's usages in line; give the partition.

        Raises:
            Refused: they were not taken; nothing will be stored.
        """
        lane = self.lanes[0] if len(self.lanes) == 1 else self._pick(group.key)
        if lane.standing.refuses:
            # Not by way of a local: frame and exception would keep each other, and the request.
            raise lane.standing.trouble
        self.admission.enter(group.count, group.size)
        lane.submit(group)
        return lane.partition

    def ids(self, last: int, count: int, partition: int) -> list[UsageId]:
        """Give the ids of the `count` usages that end at a seq."""
        total = len(self.lanes)
        first = usage_id(Seq(last - count + 1), partition, total)
        return [*range(first, first + count * total, total)]

    def _pick(self, key: Key | None) -> Lane:
        if key is not None:
            # A key must meet its earlier self, also one that 0.2.0 stored.
            return self.lanes[crc32(key.unscoped.encode()) % len(self.lanes)]
        self._turn = (self._turn + 1) % len(self.lanes)
        turned = [*self.lanes[self._turn :], *self.lanes[: self._turn]]
        return min(turned, key=lambda lane: (not lane.ready, lane.waiting))


def _ended(lane: Lane, fatal: Callable[[BaseException], None], done: asyncio.Task[None]) -> None:
    # Its sweeper has gone with it: nobody else settles what waits.
    lane.abandon()
    if not done.cancelled() and (error := done.exception()):
        fatal(error)
