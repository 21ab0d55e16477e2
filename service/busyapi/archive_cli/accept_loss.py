"""`archive accept-loss`: an operator gives up usages that the archive is missing, with a reason."""

import sys
from pathlib import Path

from busyapi.archive.config import ArchiveConfig
from busyapi.archive.lock import FolderLock
from busyapi.archive.writer import PartitionWriter
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.snapshot import ArchiveNotFound, ArchivePartition
from busyapi.errors import ArchiveDamaged, ArchiveError, ArchiveLocked
from busyapi.ids import MAX_ID, Seq
from busyapi.output import flush_output, write_output


class NothingMissing(ArchiveError):
    """The archive is complete up to that seq: there is nothing to accept."""


class SeqTooHigh(ArchiveError):
    """No usage can have that seq."""


class NotConfirmed(ArchiveError):
    """Nothing was recorded, because it was not confirmed."""


def accept_loss(
    root: Path, number: int, through: Seq, reason: str, *, replaces: str = "", confirmed: bool
) -> None:
    """Record as lost every seq above the cursor, up to `through`, that no file holds.

    With `replaces`, the archive also takes the place of another one from which Redis was seeded.
    The lock is held while the operator decides, so exactly what they confirm is recorded.

    Raises:
        ArchiveNotFound: the folder does not hold this partition.
        ArchiveDamaged: the partition's identity cannot be read.
        ArchiveLocked: a flusher holds the partition.
        NothingMissing: `through` is not above the cursor.
        SeqTooHigh: `through` is above the seq of the highest id.
        NotConfirmed: the operator did not type the number.
    """
    partition = _find_partition(root, number)
    advice = (
        "the flusher is running: stop it. If it is halted, try again in 3 s: it holds the lock"
        " while it retries"
    )
    writer = recover_for_command(root, partition, advice)
    try:
        _check_seq(through, partition.identity.strides.stride)
        has_missing = through > writer.cursor
        if not has_missing and not replaces:
            raise NothingMissing(
                f"partition {number} is complete up to seq {writer.cursor}: set --through above it"
            )
        holes = writer.find_holes(through) if has_missing else []
        for hole in holes:
            write_output(
                f"will be recorded as lost: seqs {hole.first} to {hole.last},"
                f" {partition.describe_ids(hole)}\n"
            )
        if not confirmed:
            count = sum(hole.last - hole.first + 1 for hole in holes)
            require_confirmation(
                count, f"Type {count}, the number of seqs, to record them as lost for good: "
            )
        if replaces:
            writer.update_identity(replaces=replaces)
        if has_missing:
            writer.record_gap(through, f"accepted by an operator: {reason}")
        write_output(f"recorded: partition {number} now ends at seq {writer.cursor}\n")
        if writer.stats.highest_seq > writer.cursor:
            write_output(f"usages are still missing, up to seq {writer.stats.highest_seq}\n")
    finally:
        writer.close()


def _check_seq(through: Seq, stride: int) -> None:
    highest = MAX_ID // stride
    if through > highest:
        raise SeqTooHigh(
            f"--through {through} is above {highest}, the highest seq that an id can have: copy the"
            " number from the flusher's message"
        )


def _find_partition(root: Path, number: int) -> ArchivePartition:
    (place,) = find_partitions(root, number)
    if place.partition:
        return place.partition
    if place.problem == "damaged":
        raise ArchiveDamaged(place.error)
    raise ArchiveNotFound(f"partition {number} is not in {root}")


def recover_for_command(
    root: Path, partition: ArchivePartition, advice: str, lock: FolderLock | None = None
) -> PartitionWriter:
    """Recover a partition as a flusher does, and hold its lock, which the caller may have already.

    Raises:
        ArchiveLocked: a flusher holds it; the message ends with `advice`.
    """
    try:
        return PartitionWriter.recover(
            ArchiveConfig(
                root,
                partition.identity.partition,
                partition.identity.strides.stride,
                bound=partition.identity.bound,
                segment_bytes=1 << 26,
                segment_age=3600.0,
                retention_days=0,
                format=partition.identity.format,
            ),
            lock,
        )
    except ArchiveLocked as error:
        raise ArchiveLocked(f"{error}: {advice}") from error


def require_confirmation(number: int, question: str) -> None:
    """Ask the operator to type a number.

    Raises:
        NotConfirmed: they did not, or there is no terminal.
    """
    if not sys.stdin.isatty():
        raise NotConfirmed("stdin is not a terminal: add --yes to record this")
    write_output(question)
    flush_output()
    if sys.stdin.readline().strip() != str(number):
        raise NotConfirmed
