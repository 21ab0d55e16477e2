"""What waits to be committed, and how much of it one process will hold."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import NamedTuple, Protocol

from busyapi.errors import BusyapiError, Overloaded, copy_error
from busyapi.stream.session import CommitResult


class CommitObserver(Protocol):
    """What a committer tells the metrics."""

    def record_commit(self, usages: int, seconds: float) -> None:
        """One call was stored."""

    def record_disconnect(self, error: BusyapiError) -> None:
        """The committer has no checked connection, and why."""


class IdempotencyKey(NamedTuple):
    """An Idempotency-Key, by digests: neither key nor body is kept as it was sent."""

    key_digest: str
    """Of the key and whose it is."""
    body_digest: str
    legacy_digest: str = ""
    """Of the key alone, as 0.2.0 had it."""
    request_token: str = ""
    """Names the request that brought it."""


class PendingWrite(ABC):
    """The usages of one request: stored together, answered together."""

    __slots__ = ("count", "created_at", "key", "lines", "size")

    def __init__(self, lines: Sequence[bytes], key: IdempotencyKey | None = None) -> None:
        self.lines = lines
        self.count = len(lines)
        self.size = sum(map(len, lines))
        self.key = key
        self.created_at = monotonic()

    @property
    @abstractmethod
    def is_waiting(self) -> bool:
        """Whether somebody still waits for the answer."""

    @abstractmethod
    def complete(self, last: int, *, replayed: bool = False) -> None:
        """Answer with the last seq and whether an earlier request stored the usages."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """Give the failure, likewise."""


class AwaitedWrite(PendingWrite):
    """A group whose handler awaits the answer."""

    __slots__ = ("future",)

    def __init__(self, lines: Sequence[bytes], key: IdempotencyKey | None = None) -> None:
        super().__init__(lines, key)
        self.future: asyncio.Future[CommitResult] = asyncio.get_running_loop().create_future()

    @property
    def is_waiting(self) -> bool:
        """Whether the request has neither gone away nor been given up."""
        return not self.future.done()

    def complete(self, last: int, *, replayed: bool = False) -> None:
        """Set the future's result, unless the request has ended."""
        if not self.future.done():
            self.future.set_result(CommitResult(last, replayed))

    def fail(self, error: Exception) -> None:
        """Give the failure: one of its own, since it is raised in this request's frames."""
        if not self.future.done():
            self.future.set_exception(copy_error(error))
            # Marked as seen: a device that hung up leaves nobody to look at it.
            self.future.exception()


class AdmissionControl:
    """The bound on what one process holds, waiting and under way, over all its committers."""

    def __init__(self, max_usages: int, max_bytes: int) -> None:
        self._max_usages = max_usages
        self._max_bytes = max_bytes
        self.count = 0
        self.bytes = 0

    def admit(self, count: int, size: int) -> None:
        """Take usages in.

        Raises:
            Overloaded: they would be too many; nothing was taken.
        """
        if self.count + count > self._max_usages or self.bytes + size > self._max_bytes:
            raise Overloaded
        self.count += count
        self.bytes += size

    def release(self, writes: Iterable[PendingWrite]) -> None:
        """Let groups go that were answered or given up."""
        for write in writes:
            self.count -= write.count
            self.bytes -= write.size
