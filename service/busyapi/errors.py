"""Every failure with a name.

    BusyapiError
    ├── ConfigError            a setting is wrong: exit 2 with what to change
    ├── Refused                nothing was stored, a retry is safe
    │   ├── BufferFull         the bound between issue and archive is reached, or memory is out
    │   ├── IdempotencyKeysFull           as many Idempotency-Keys are known as may be
    │   ├── NotSeeded          no flusher has vouched for this Redis server yet
    │   ├── Overloaded         too much is pending in this process
    │   ├── RedisUnavailable          Redis does not answer or cannot write
    │   ├── DurabilityNotMet            Redis is weaker than the durability tier
    │   └── UnknownVersion     what is stored was written by another version of busyapi
    ├── OutcomeUnknown          the answer was lost: it may be stored
    ├── IdempotencyKeyConflict              an Idempotency-Key came with another body
    ├── InvalidRequest               what the device sent cannot be taken
    │   ├── MalformedBody      400
    │   ├── BodyTooLarge       413
    │   ├── UnsupportedMediaType   415
    │   │   └── UnsupportedContentEncoding
    │   └── InvalidUsage          422
    ├── LeaseLost              another flusher owns the partition
    └── ArchiveError
        ├── ArchiveLocked      another process writes this archive
        ├── ArchiveTakenOver       another process may have taken this archive over: recover
        ├── PartitionMismatch  archive, Redis and settings disagree on P
        ├── LossSuspected      usages may be gone: only a person may go on
        ├── ArchiveDamaged     a file cannot be trusted, and going on would make it worse
        ├── ArchiveFull        the volume has no space: wait and try again
        ├── FsyncFailed         fsync failed: exit, recover into a new file
        └── UsageExpired       the usage was archived, and its retention time is over: 410

An exception's docstring is its message unless it is raised with a better one.
No message holds a payload value or a patient id.
"""

from typing import NamedTuple, TypeVar


class BusyapiError(Exception):
    """Something went wrong in busyapi."""

    def __str__(self) -> str:
        """Return the message given, or the docstring's first line."""
        return super().__str__() or (self.__doc__ or "").strip().splitlines()[0]


E = TypeVar("E", bound=Exception)


def copy_error(error: E) -> E:
    """Return the same failure as another object, which was never raised.

    An exception that was raised keeps the frames that it passed through, and with them a request's
    body; raised again, it keeps those of every time. So each request gets an object of its own.
    """
    return type(error)(*error.args)


def describe_for_log(error: BaseException) -> str:
    """Say what happened, for a log: in our words or the system's.

    Any other text could quote what a device sent: of such an error only type and place.
    """
    if isinstance(error, BusyapiError):
        return str(error)
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, OSError) else f"{name} in {locate_error(error)}"


def locate_error(error: BaseException) -> str:
    """Say where an exception was raised."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace else ""


class ConfigError(BusyapiError):
    """A setting is wrong."""


class Refused(BusyapiError):
    """Nothing was stored. It is safe to send this again."""


class BufferFull(Refused):
    """The buffer is full: the archive is behind by the most allowed, or memory has run out."""


class IdempotencyKeysFull(Refused):
    """Too many Idempotency-Keys are in use. Send this later, or without the key."""


class NotSeeded(Refused):
    """The buffer is being prepared after a start or a failover."""


class Overloaded(Refused):
    """This process has more usages waiting than it may hold."""


class RedisUnavailable(Refused):
    """The buffer does not answer."""


class DurabilityNotMet(Refused):
    """Redis is weaker than the durability tier that is configured."""


class UnknownVersion(Refused):
    """This was written by another version of the service, which this one cannot read."""


class OutcomeUnknown(BusyapiError):
    """The buffer's answer was lost. The usage may be stored already."""


class IdempotencyKeyConflict(BusyapiError):
    """This Idempotency-Key was used with another body."""


class ValidationError(NamedTuple):
    """One reason why a body is not a usage: a JSON pointer (RFC 6901) and a sentence."""

    pointer: str
    detail: str


class InvalidRequest(BusyapiError):
    """The request cannot be taken."""


class MalformedBody(InvalidRequest):
    """The body is not a JSON object in UTF-8."""


class BodyTooLarge(InvalidRequest):
    """The body is larger than the limit."""


class UnsupportedMediaType(InvalidRequest):
    """The body is neither JSON nor a form, or its Content-Encoding is unknown."""


class UnsupportedContentEncoding(UnsupportedMediaType):
    """The Content-Encoding must be gzip or absent."""


class InvalidUsage(InvalidRequest):
    """The body is JSON, but not a usage."""

    def __init__(self, errors: list[ValidationError]) -> None:
        super().__init__()
        self.errors = errors


class LeaseLost(BusyapiError):
    """Another flusher holds this partition's lease."""


class ArchiveError(BusyapiError):
    """The archive cannot be used."""


class ArchiveLocked(ArchiveError):
    """Another process writes this archive."""


class ArchiveTakenOver(ArchiveError):
    """Another process may have taken this archive over. Nothing is published before recovery."""


class PartitionMismatch(ArchiveError):
    """Settings, Redis and archive disagree about the partitions."""


class LossSuspected(ArchiveError):
    """Usages may be gone. Only `busyapi archive accept-loss`, typed by a person, goes on."""


class ArchiveDamaged(ArchiveError):
    """A file of the archive cannot be trusted. A person has to look at it."""


class ArchiveFull(ArchiveError):
    """The archive's volume is full. Nothing is lost; flushing goes on when space returns."""


class FsyncFailed(ArchiveError):
    """The disk did not take an fsync. What it holds is unknown until recovery rewrites it."""


class UsageExpired(ArchiveError):
    """The usage was archived, and its retention time is over."""
