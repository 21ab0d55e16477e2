"""Making a restored archive fit to give out ids again: a person says which id was the last one.

A backup ends at some seq; ids beyond it were given out after it was made. "No id can exceed cursor
+ bound" holds for the archive that gave them, not for its backup. If Redis is lost as well, only
someone outside knows how far ids went: clients, logs, a system that the usages were passed to.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from busyapi.archive.ranges import SeqRange
from busyapi.archive.writer import PartitionWriter
from busyapi.archive_cli.accept_loss import recover_for_command, require_confirmation
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.snapshot import ArchiveNotFound, ArchivePartition
from busyapi.errors import ArchiveDamaged, ArchiveError
from busyapi.ids import Seq, UsageId, split_usage_id

Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]

_EXAMPLES = """\
  busyapi archive restored --last-id 22954
  busyapi archive restored --partition 3 --last-id 22954 --yes
"""


class WrongLastId(ArchiveError):
    """This was not the last id."""


def add_command(add: Add, usage_id: Callable[[str], UsageId]) -> None:
    """Add `restored` to the commands of the archive."""
    parser = add("restored", _run, _EXAMPLES)
    parser.add_argument(
        "--last-id",
        type=usage_id,
        required=True,
        metavar="ID",
        help="the highest id that anyone outside was given, of any partition",
    )
    parser.add_argument(
        "--partition",
        type=int,
        action="append",
        metavar="N",
        help="from 0; may be repeated (default: every partition in the folder)",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _run(options: argparse.Namespace) -> int:
    """Continue with an archive that was restored from a backup.

    Needed when Redis has lost its data too, and after a restore from a volume snapshot. Give the
    highest id that was given out as far as anyone knows: look into clients' logs and into systems
    that usages were passed to. If in doubt give a higher one: ids that are skipped cost nothing, an
    id that is given twice names two usages. What the archive lacks up to there is recorded as lost.
    """
    accept_restored(options.dir, options.last_id, options.partition, confirmed=options.yes)
    return 0


def accept_restored(
    root: Path, last_id: UsageId, numbers: list[int] | None, *, confirmed: bool
) -> None:
    """Record in each partition that its ids up to `last_id` were given out, and make it original.

    All locks are held while a person thinks. If we die in the middle, the partitions that are not
    done are still known as copies, and the same command can be repeated.

    Raises:
        ArchiveNotFound: there is none, or not all of the partitions asked for.
        ArchiveDamaged: what a partition is cannot be read.
        ArchiveLocked: a flusher holds one.
        WrongLastId: a partition has a higher id already; nothing is recorded.
        NotConfirmed: the id was not typed.
    """
    found = _select_partitions(root, numbers)
    with ExitStack() as stack:
        writers = []
        for each in found:
            writer = recover_for_command(
                root, each, "stop its flusher, or wait until it has halted"
            )
            stack.callback(writer.close)
            writers.append((each, writer))
        throughs = [_last_seq_up_to(each, writer, last_id) for each, writer in writers]
        lost = sum(
            _describe(each, writer, through)
            for (each, writer), through in zip(writers, throughs, strict=True)
        )
        if not confirmed:
            require_confirmation(
                last_id, f"Type {last_id}, the last id, to record {lost} seqs as lost for good: "
            )
        for (each, writer), through in zip(writers, throughs, strict=True):
            if through > writer.cursor:
                writer.record_gap(
                    through, f"restored from a backup; a person said: last id {last_id}"
                )
            writer.adopt_copy()
            number = each.identity.partition
            sys.stdout.write(f"recorded: partition {number} now ends at seq {writer.cursor}\n")


def _select_partitions(root: Path, numbers: list[int] | None) -> list[ArchivePartition]:
    """Return the partitions asked for, or all that are in the folder: each may have its own."""
    found = []
    for place in find_partitions(root):
        if numbers is not None and place.number not in numbers:
            continue
        if place.problem == "damaged":
            raise ArchiveDamaged(place.error)
        if place.partition:
            found.append(place.partition)
    if missing := set(numbers or ()) - {each.identity.partition for each in found}:
        raise ArchiveNotFound(f"partition {min(missing)} is not in {root}")
    return found


def _last_seq_up_to(partition: ArchivePartition, writer: PartitionWriter, last_id: UsageId) -> Seq:
    """Return the last seq of a partition whose id is not above `last_id`."""
    number, seq = split_usage_id(last_id, partition.identity.partitions)
    through = seq if partition.identity.partition <= number else Seq(seq - 1)
    if through < writer.stats.highest_seq:
        raise WrongLastId(
            f"partition {partition.identity.partition} already holds id"
            f" {partition.id_of(writer.stats.highest_seq)}, so {last_id} was not the last id."
            " Nothing was recorded; give the highest id that any client or log knows"
        )
    return through


def _describe(partition: ArchivePartition, writer: PartitionWriter, through: Seq) -> int:
    """Print what will be recorded for a partition; return how many seqs that gives up."""
    number = partition.identity.partition
    copy = "a copy" if writer.identity.is_copy else "not known as a copy"
    sys.stdout.write(
        f"partition {number} ({copy}) ends at seq {writer.cursor},"
        f" {partition.describe_ids(SeqRange(Seq(writer.cursor), Seq(writer.cursor)))}\n"
        if writer.cursor
        else f"partition {number} ({copy}) holds no usage\n"
    )
    holes = list(writer.find_holes(through)) if through > writer.cursor else []
    for each in holes:
        sys.stdout.write(
            f"  recorded as lost: seqs {each.first} to {each.last},"
            f" {partition.describe_ids(each)}\n"
        )
    return sum(each.last - each.first + 1 for each in holes)
