"""Writes that wait to be committed, and the limit on them in one process."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import NamedTuple, Protocol

from busyapi.errors import BusyapiError, Overloaded, copy_error
from busyapi.stream.session import CommitResult


class CommitObserver(Protocol):
    """The events that a committer reports to the metrics."""

    def record_commit(self, usages: int, seconds: float) -> None:
        """Record that a command stored usages."""

    def record_confirmation(self, seconds: float) -> None:
        """Record how long a batch that the primary had stored waited for its replicas."""

    def record_disconnect(self, error: BusyapiError) -> None:
        """Record that the committer has no checked connection, and why."""


class IdempotencyKey(NamedTuple):
    """The digests of an Idempotency-Key: neither key nor body is stored as it was sent."""

    key_digest: str
    """Digest of the key and its scope (the client's credential, or the patients)."""
    body_digest: str
    legacy_digest: str = ""
    """Digest of the key alone, as 0.2.0 stored it."""
    request_token: str = ""
    """Identifies the request that holds the key."""


class PendingWrite(ABC):
    """The usages of one request, which are stored together and answered together."""

    __slots__ = ("count", "created_at", "is_stamped", "key", "lines", "partition", "size")

    def __init__(
        self,
        lines: Sequence[bytes],
        key: IdempotencyKey | None = None,
        *,
        is_stamped: bool = False,
    ) -> None:
        """Set the lines. `is_stamped`: each has a stamp behind its usage."""
        self.lines = lines
        self.is_stamped = is_stamped
        self.count = len(lines)
        self.size = sum(map(len, lines))
        self.key = key
        self.partition = 0  # `CommitterPool.submit` sets it
        self.created_at = monotonic()

    @property
    @abstractmethod
    def is_waiting(self) -> bool:
        """Return whether a client still waits for the response."""

    @abstractmethod
    def complete(self, last: int, *, replayed: bool = False) -> None:
        """Answer with the last seq and whether an earlier request stored the usages."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """Answer with an error."""


class AwaitedWrite(PendingWrite):
    """A write whose handler awaits the result."""

    __slots__ = ("future",)

    def __init__(
        self,
        lines: Sequence[bytes],
        key: IdempotencyKey | None = None,
        *,
        is_stamped: bool = False,
    ) -> None:
        super().__init__(lines, key, is_stamped=is_stamped)
        self.future: asyncio.Future[CommitResult] = asyncio.get_running_loop().create_future()

    @property
    def is_waiting(self) -> bool:
        """Return whether the request is neither cancelled nor answered."""
        return not self.future.done()

    def complete(self, last: int, *, replayed: bool = False) -> None:
        """Set the future's result, unless the request has ended."""
        if not self.future.done():
            self.future.set_result(CommitResult(last, replayed))

    def fail(self, error: Exception) -> None:
        """Set a copy of the error, which the handler raises in its own frames."""
        if not self.future.done():
            self.future.set_exception(copy_error(error))
            # Mark it as retrieved: or asyncio logs it when the device has hung up.
            self.future.exception()


class AdmissionControl:
    """The limit on the usages of one process, queued and in flight, over all its committers."""

    def __init__(self, max_usages: int, max_bytes: int) -> None:
        self._max_usages = max_usages
        self._max_bytes = max_bytes
        self.count = 0
        self.bytes = 0

    def admit(self, count: int, size: int) -> None:
        """Count usages in.

        Raises:
            Overloaded: they would exceed the limit; they are not counted.
        """
        if self.count + count > self._max_usages or self.bytes + size > self._max_bytes:
            raise Overloaded
        self.count += count
        self.bytes += size

    def release(self, writes: Iterable[PendingWrite]) -> None:
        """Count out writes that were answered."""
        count = size = 0
        for write in writes:
            count += write.count
            size += write.size
        self.count -= count
        self.bytes -= size
