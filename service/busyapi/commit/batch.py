"""What waits to be committed, and how much of it one process will hold."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import NamedTuple, Protocol

from busyapi.errors import BusyapiError, Overloaded, fresh


class Observer(Protocol):
    """What a lane tells the metrics."""

    def committed(self, usages: int, seconds: float) -> None:
        """One call was stored."""

    def reconnecting(self, error: BusyapiError) -> None:
        """The lane has no checked connection, and why."""


class Key(NamedTuple):
    """An Idempotency-Key, by digests: neither key nor body is kept as it was sent."""

    digest: str
    """Of the key and whose it is."""
    body: str
    unscoped: str = ""
    """Of the key alone, as 0.2.0 had it."""
    sign: str = ""
    """Names the request that brought it."""


class Group(ABC):
    """The usages of one request: stored together, answered together."""

    __slots__ = ("born", "count", "key", "lines", "size")

    def __init__(self, lines: Sequence[bytes], key: Key | None = None) -> None:
        self.lines = lines
        self.count = len(lines)
        self.size = sum(map(len, lines))
        self.key = key
        self.born = monotonic()

    @property
    @abstractmethod
    def wanted(self) -> bool:
        """Whether somebody still waits for the answer."""

    @abstractmethod
    def answer(self, last: int) -> None:
        """Give the last seq, negative when it repeats an earlier answer, if it is wanted."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """Give the failure, likewise."""


class Awaited(Group):
    """A group whose handler awaits the answer."""

    __slots__ = ("future",)

    def __init__(self, lines: Sequence[bytes], key: Key | None = None) -> None:
        super().__init__(lines, key)
        self.future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def wanted(self) -> bool:
        """Whether the request has neither gone away nor been given up."""
        return not self.future.done()

    def answer(self, last: int) -> None:
        """Give the last seq."""
        if not self.future.done():
            self.future.set_result(last)

    def fail(self, error: Exception) -> None:
        """Give the failure: one of its own, since it is raised in this request's frames."""
        if not self.future.done():
            self.future.set_exception(fresh(error))
            # Marked as seen: a device that hung up leaves nobody to look at it.
            self.future.exception()


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

    def leave(self, groups: Iterable[Group]) -> None:
        """Let groups go that were answered or given up."""
        for group in groups:
            self.count -= group.count
            self.bytes -= group.size
