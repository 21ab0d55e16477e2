"""`archive confirm-restore`: the operator names the last id, to use a restored archive again.

A backup ends at some seq, and higher ids were issued after it was made. "No id can exceed cursor
+ bound" holds for the original archive, not for its backup. If Redis is lost as well, only sources
outside know the highest id: clients, logs, or a system to which the usages were passed on.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from busyapi.archive import paths
from busyapi.archive.holders import delete_holders
from busyapi.archive.ranges import SeqRange
from busyapi.archive.writer import PartitionWriter
from busyapi.archive_cli.accept_loss import recover_for_command, require_confirmation
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.snapshot import ArchiveNotFound, ArchivePartition
from busyapi.errors import ArchiveDamaged, ArchiveError
from busyapi.ids import Seq, UsageId
from busyapi.output import write_output

Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]

_EXAMPLES = """\
  busyapi archive confirm-restore --last-id 22954
  busyapi archive confirm-restore --partition 3 --last-id 22954 --yes
"""


class WrongLastId(ArchiveError):
    """The named id was not the last one."""


def add_command(add: Add, usage_id: Callable[[str], UsageId]) -> None:
    """Add the command `confirm-restore`."""
    parser = add("confirm-restore", _run, _EXAMPLES)
    parser.add_argument(
        "--last-id",
        type=usage_id,
        required=True,
        metavar="ID",
        help="the highest id that any client was given, of any partition",
    )
    parser.add_argument(
        "--partition",
        type=int,
        action="append",
        metavar="N",
        help="from 0; may be repeated (default: every partition in the folder)",
    )
    parser.add_argument("--yes", action="store_true", help="record without asking")


def _run(options: argparse.Namespace) -> int:
    """Continue with an archive that was restored from a backup.

    Needed if Redis has lost its data too, and after a restore from a volume snapshot. Name the
    highest id that was ever issued: look into clients' logs and into systems to which usages
    were passed on. In doubt, name a higher one: skipped ids cost nothing, but an id that is issued
    twice belongs to two usages. The seqs up to this id that the archive does not hold are recorded
    as lost.
    """
    confirm_restore(options.dir, options.last_id, options.partition, confirmed=options.yes)
    return 0


def confirm_restore(
    root: Path, last_id: UsageId, numbers: list[int] | None, *, confirmed: bool
) -> None:
    """Record in each partition that its ids up to `last_id` were issued, and end its copy state.

    All locks are held while the operator decides. If this process dies halfway, the remaining
    partitions are still marked as copies, and the operator can repeat the command.

    Raises:
        ArchiveNotFound: the folder holds no archive, or not all of the named partitions.
        ArchiveDamaged: a partition's identity cannot be read.
        ArchiveLocked: a flusher holds a partition.
        WrongLastId: a partition already holds a higher id; nothing is recorded.
        NotConfirmed: the operator did not type the id.
    """
    partitions = _select_partitions(root, numbers)
    with ExitStack() as stack:
        writers = []
        for partition in partitions:
            writer = recover_for_command(
                root, partition, "stop its flusher, or wait until it has halted"
            )
            stack.callback(writer.close)
            writers.append((partition, writer))
        last_seqs = [_last_seq_up_to(partition, writer, last_id) for partition, writer in writers]
        lost = sum(
            _describe(partition, writer, last_seq)
            for (partition, writer), last_seq in zip(writers, last_seqs, strict=True)
        )
        if not confirmed:
            require_confirmation(
                last_id, f"Type {last_id}, the last id, to record {lost} seqs as lost for good: "
            )
        for (partition, writer), last_seq in zip(writers, last_seqs, strict=True):
            if last_seq > writer.cursor:
                writer.record_gap(
                    last_seq, f"restored from a backup; operator gave last id {last_id}"
                )
            number = partition.identity.partition
            # It names the Redis servers that held every usage when the backup was made.
            delete_holders(paths.partition_folder(root, number))
            writer.adopt_copy()
            write_output(f"recorded: partition {number} now ends at seq {writer.cursor}\n")


def _select_partitions(root: Path, numbers: list[int] | None) -> list[ArchivePartition]:
    """Return the named partitions, or all in the folder: each may have its own volume."""
    partitions = []
    for status in find_partitions(root):
        if numbers is not None and status.number not in numbers:
            continue
        if status.problem == "damaged":
            raise ArchiveDamaged(status.error)
        if status.partition:
            partitions.append(status.partition)
    present = {partition.identity.partition for partition in partitions}
    if missing := set(numbers or ()) - present:
        raise ArchiveNotFound(f"partition {min(missing)} is not in {root}")
    return partitions


def _last_seq_up_to(partition: ArchivePartition, writer: PartitionWriter, last_id: UsageId) -> Seq:
    """Return the last seq of a partition whose id is not above `last_id`."""
    identity = partition.identity
    last_seq = identity.strides.last_seq_up_to(last_id, identity.partition)
    if last_seq < writer.stats.highest_seq:
        raise WrongLastId(
            f"partition {identity.partition} already holds id"
            f" {partition.id_of(writer.stats.highest_seq)}, so {last_id} was not the last id."
            " Nothing was recorded; give the highest id that any client or log knows"
        )
    return last_seq


def _describe(partition: ArchivePartition, writer: PartitionWriter, last_seq: Seq) -> int:
    """Print what will be recorded for a partition; return the number of seqs given up."""
    number = partition.identity.partition
    copy = "a copy" if writer.identity.is_copy else "not known as a copy"
    write_output(
        f"partition {number} ({copy}) ends at seq {writer.cursor},"
        f" {partition.describe_ids(SeqRange(Seq(writer.cursor), Seq(writer.cursor)))}\n"
        if writer.cursor
        else f"partition {number} ({copy}) holds no usage\n"
    )
    holes = list(writer.find_holes(last_seq)) if last_seq > writer.cursor else []
    for hole in holes:
        write_output(
            f"  will be recorded as lost: seqs {hole.first} to {hole.last},"
            f" {partition.describe_ids(hole)}\n"
        )
    return sum(hole.last - hole.first + 1 for hole in holes)
