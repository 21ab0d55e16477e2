"""Giving up usages that the archive lacks: a decision of a person, who says why."""

import sys
from pathlib import Path

from busyapi.archive.config import ArchiveConfig
from busyapi.archive.writer import PartitionWriter
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.snapshot import ArchiveNotFound, ArchivePartition
from busyapi.errors import ArchiveDamaged, ArchiveError, ArchiveLocked
from busyapi.ids import MAX_ID, Seq


class NothingMissing(ArchiveError):
    """The archive is whole up to that seq: there is nothing to accept."""


class NotConfirmed(ArchiveError):
    """Nothing was recorded: it was not confirmed."""


def accept_loss(
    root: Path, number: int, through: Seq, reason: str, *, replaces: str = "", confirmed: bool
) -> None:
    """Record every seq behind the cursor, up to `through`, that no file holds as lost.

    With `replaces` the archive also stands in for another one, that Redis was seeded from.
    The lock is held while a person thinks: what they confirm is what is recorded.

    Raises:
        ArchiveNotFound: this partition is not here.
        ArchiveDamaged: what it is cannot be read.
        ArchiveLocked: a flusher holds it.
        NothingMissing: `through` is not beyond the cursor, or beyond every id.
        NotConfirmed: the number was not typed.
    """
    partition = _find_partition(root, number)
    advice = "a flusher that suspects a loss lets go of it; this one works, or try again"
    writer = recover_for_command(root, partition, advice)
    try:
        beyond = writer.cursor < through <= MAX_ID // partition.identity.partitions
        if not beyond and not replaces:
            raise NothingMissing(
                f"partition {number} is whole up to seq {writer.cursor}: --through must lie beyond"
            )
        holes = writer.find_holes(through) if beyond else []
        for each in holes:
            sys.stdout.write(
                f"to give up: seqs {each.first} to {each.last}, {partition.describe_ids(each)}\n"
            )
        if not confirmed:
            count = sum(each.last - each.first + 1 for each in holes)
            require_confirmation(
                count, f"Type {count}, the number of seqs, to give them up for good: "
            )
        if replaces:
            writer.mark_identity(replaces=replaces)
        if beyond:
            writer.record_gap(through, f"accepted by a person: {reason}")
        sys.stdout.write(f"recorded: partition {number} now ends at seq {writer.cursor}\n")
        if writer.stats.highest_seq > writer.cursor:
            sys.stdout.write(f"usages are still missing, up to seq {writer.stats.highest_seq}\n")
    finally:
        writer.close()


def _find_partition(root: Path, number: int) -> ArchivePartition:
    (place,) = find_partitions(root, number)
    if place.partition:
        return place.partition
    if place.problem == "damaged":
        raise ArchiveDamaged(place.error)
    raise ArchiveNotFound(f"partition {number} is not in {root}")


def recover_for_command(root: Path, partition: ArchivePartition, advice: str) -> PartitionWriter:
    """Recover a partition for a person's command, as a flusher would, and hold its lock.

    Raises:
        ArchiveLocked: a flusher holds it; `advice` is what to do then.
    """
    try:
        return PartitionWriter.recover(
            ArchiveConfig(
                root,
                partition.identity.partition,
                partition.identity.partitions,
                bound=partition.identity.bound,
                segment_bytes=1 << 26,
                segment_age=3600.0,
                retention_days=0,
            )
        )
    except ArchiveLocked as error:
        raise ArchiveLocked(f"{error}: {advice}") from error


def require_confirmation(number: int, question: str) -> None:
    """Ask a person to type a number.

    Raises:
        NotConfirmed: they did not, or there is no terminal to ask at.
    """
    if not sys.stdin.isatty():
        raise NotConfirmed("not a terminal: add --yes to record this")
    sys.stdout.write(question)
    sys.stdout.flush()
    if sys.stdin.readline().strip() != str(number):
        raise NotConfirmed
