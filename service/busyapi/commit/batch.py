"""What waits to be committed, and how much of it one process will hold."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from busyapi.errors import BusyapiError, Overloaded


class Observer(Protocol):
    """What a lane tells the metrics."""

    def committed(self, usages: int, seconds: float) -> None:
        """One call was stored."""

    def reconnecting(self, error: BusyapiError) -> None:
        """The lane has no checked connection, and why."""


class Waiter(Protocol):
    """Who is told how a group ended: an `asyncio.Future[int]`, or what does as one does."""

    def done(self) -> bool:
        """Say whether nobody waits any more."""

    def set_result(self, result: int, /) -> None:
        """Take the last seq of the group."""

    def set_exception(self, exception: Exception, /) -> None:
        """Take why there is none."""

    def exception(self) -> BaseException | None:
        """Mark the exception as seen."""


class Key(NamedTuple):
    """An Idempotency-Key, by digests: neither key nor body is kept as it was sent."""

    digest: str
    body: str


class Group:
    """The usages of one request: stored together, answered together.

    What the waiter is told is the last seq of the group, negative when it repeats an earlier
    answer.
    """

    __slots__ = ("born", "count", "key", "lines", "size", "waiter")

    def __init__(
        self,
        lines: Sequence[bytes],
        size: int,
        waiter: Waiter,
        born: float,
        key: Key | None,
    ) -> None:
        self.lines = lines
        self.count = len(lines)
        self.size = size
        self.waiter = waiter
        self.born = born
        self.key = key

    def answer(self, last: int) -> None:
        """Give the result, unless the request has gone away or was given up."""
        if not self.waiter.done():
            self.waiter.set_result(last)

    def fail(self, error: Exception) -> None:
        """Give the failure, likewise."""
        if not self.waiter.done():
            self.waiter.set_exception(error)
            # Marked as seen: a device that hung up leaves nobody to look at it.
            self.waiter.exception()


class Admission:
    """The bound on what one process holds, waiting and under way, over all its lanes."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.count = 0
        self.bytes = 0

    def enter(self, count: int, size: int) -> None:
        """Take usages in.

        Raises:
            Overloaded: they would be too many; nothing was taken.
        """
        if self.count + count > self._most or self.bytes + size > self._most_bytes:
            raise Overloaded
        self.count += count
        self.bytes += size

    def leave(self, group: Group) -> None:
        """Let a group go that was answered or given up."""
        self.count -= group.count
        self.bytes -= group.size
