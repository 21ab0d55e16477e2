"""The errors of busyapi that more than one folder uses.

    BusyapiError
    ├── ConfigError                     a setting is wrong: exit code 2
    ├── Refused                         nothing was stored; a retry is safe
    │   ├── BufferFull                  the bound is reached, or memory is full
    │   ├── IdempotencyKeysFull         the limit of known Idempotency-Keys is reached
    │   ├── NotSeeded                   no flusher has accepted this Redis server yet
    │   │   ├── PartitionPaused         its flusher has stopped commits for a moment
    │   │   └── WaitingForParent        a new partition, whose ids another one still has to leave
    │   ├── Overloaded                  too many usages are pending in this process
    │   ├── RedisUnavailable            Redis does not answer or cannot write
    │   │   └── NoServer                BUSYAPI_REDIS_URL names no server for the partition
    │   ├── CredentialKeysUnavailable   the provider's keys, which verify JWTs, were never fetched
    │   ├── DurabilityNotMet            Redis does not meet the durability tier
    │   ├── AuditUnavailable            a read cannot be recorded, so it is not answered
    │   ├── QueriesBusy                 too many queries are under way
    │   └── UnknownVersion              another version of busyapi wrote the stored data
    ├── OutcomeUnknown                  the reply was lost: the usage may be stored
    ├── IdempotencyKeyConflict          an Idempotency-Key was sent with another body
    ├── InvalidCredential               the credential of a request is unknown, false or expired
    ├── InvalidRequest                  the request is not acceptable
    │   ├── MalformedBody               400
    │   ├── BodyTooLarge                413
    │   ├── UnsupportedMediaType        415
    │   │   └── UnsupportedContentEncoding
    │   └── InvalidUsage                422
    ├── LeaseLost                       another flusher owns the partition
    └── ArchiveError
        ├── ArchiveLocked               another process writes to this archive
        ├── ArchiveTakenOver            another process may have taken over this archive: recover it
        ├── PartitionMismatch           a setting contradicts the archive or Redis
        ├── LossSuspected               usages may be lost: an operator must decide
        ├── ArchiveDamaged              a file is damaged, and to continue could lose more
        ├── ArchiveFull                 the volume has no space: wait and try again
        ├── FsyncFailed                 fsync failed: exit, then recover into a new file
        └── UsageExpired                the usage was archived and its retention has ended: 410

The first line of an exception's docstring is its message, unless it is raised with another one.
No message contains a payload value or a patient id.
"""

from typing import NamedTuple, TypeVar


class BusyapiError(Exception):
    """An error of busyapi."""

    def __str__(self) -> str:
        """Return the message, by default the first line of the docstring."""
        return super().__str__() or (self.__doc__ or "").strip().splitlines()[0]


E = TypeVar("E", bound=Exception)


def copy_error(error: E) -> E:
    """Return a new error with the same type and arguments.

    A raised exception keeps references to the frames that it passed through, and so to the
    request's body. Raised again, it also keeps the new frames. So each request gets its own.
    """
    return type(error)(*error.args)


def describe_for_log(error: BaseException) -> str:
    """Return the message of an error of busyapi or the operating system.

    The message of any other error could quote what a device sent. For those, return type and
    location.
    """
    if isinstance(error, BusyapiError):
        return str(error)
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, OSError) else f"{name} in {locate_error(error)}"


def locate_error(error: BaseException) -> str:
    """Return the function and line where an exception was raised."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace else ""


class ConfigError(BusyapiError):
    """A setting is invalid."""


class Refused(BusyapiError):
    """Nothing was stored. It is safe to send the request again."""


class BufferFull(Refused):
    """The storage backend is full. Try again later."""


class IdempotencyKeysFull(Refused):
    """Too many Idempotency-Keys are in use. Try again later, or without a key."""


class NotSeeded(Refused):
    """The storage backend is starting or failing over. Try again later."""


class Overloaded(Refused):
    """The service is overloaded. Try again later."""


class RedisUnavailable(Refused):
    """The storage backend is unavailable. Try again later."""


class NoServer(RedisUnavailable):
    """The storage backend is unavailable. Try again later."""


class PartitionPaused(NotSeeded):
    """The storage backend is not ready for a moment. Try again later."""


class CredentialKeysUnavailable(Refused):
    """The keys that verify credentials are unavailable. Try again later."""


class WaitingForParent(NotSeeded):
    """The partition is new, and waits for another one to make room for its ids."""


class DurabilityNotMet(Refused):
    """The storage backend cannot store usages safely now. Try again later."""


class AuditUnavailable(Refused):
    """The audit trail is unavailable, so reads are refused. Try again later."""


class QueriesBusy(Refused):
    """Too many queries are under way. Try again later."""


class UnknownVersion(Refused):
    """The stored usage has a format that this version cannot read. Try again later."""


class OutcomeUnknown(BusyapiError):
    """The usage may be stored: the reply was lost. Send it again with the same Idempotency-Key."""


class IdempotencyKeyConflict(BusyapiError):
    """This Idempotency-Key was already used with another body."""


class InvalidCredential(BusyapiError):
    """The credential is unknown, invalid or expired."""


class ValidationError(NamedTuple):
    """One reason why a body is not a usage: a JSON pointer (RFC 6901) and a sentence."""

    pointer: str
    detail: str


class InvalidRequest(BusyapiError):
    """The request is invalid."""


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

    def __init__(self, errors: list[ValidationError], *message: str) -> None:
        super().__init__(*message)
        self.errors = errors


class LeaseLost(BusyapiError):
    """Another flusher holds this partition's lease."""


class ArchiveError(BusyapiError):
    """The archive cannot be used."""


class ArchiveLocked(ArchiveError):
    """Another process writes to this archive."""


class ArchiveTakenOver(ArchiveError):
    """Another process may have taken over this archive. Recover it before the next publish."""


class PartitionMismatch(ArchiveError):
    """The settings contradict the archive or Redis: partition, partitions or key prefix."""


class LossSuspected(ArchiveError):
    """Usages may be lost. An operator must run `busyapi archive accept-loss` to continue."""


class ArchiveDamaged(ArchiveError):
    """A file of the archive is damaged. An operator must examine it."""


class ArchiveFull(ArchiveError):
    """The archive volume is full. Nothing is lost; flushing continues when there is space."""


class FsyncFailed(ArchiveError):
    """An fsync failed. The content of the disk is unknown until recovery rewrites it."""


class UsageExpired(ArchiveError):
    """The usage was archived, and its retention period has ended."""
