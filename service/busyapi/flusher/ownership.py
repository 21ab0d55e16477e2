"""Before anything is taken or seeded: may this archive own the partition that Redis has?

`acquire_lease` comes first: it compares what needs no recovery of the archive, and takes the lease
after that. Nothing in here changes an archive.
"""

from typing import NamedTuple

from busyapi.archive.identity import Identity
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import LeaseLost, LossSuspected, PartitionMismatch
from busyapi.ids import Seq
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.snapshot import PartitionSnapshot
from busyapi.stream.state import PartitionState


class PartitionConfig(NamedTuple):
    """What was fixed at install, and the tier."""

    partition: int
    partitions: int
    bound: int
    tier: str


async def acquire_lease(
    partition: OwnedPartition, identity: Identity, config: PartitionConfig
) -> bool:
    """Take the lease if this archive may own the partition; tell whether it was ours already.

    Raises:
        LossSuspected: the partition was seeded from another archive.
        PartitionMismatch: Redis was installed with another number of partitions.
        LeaseLost: another flusher owns the partition now: try again on the same object.
        RedisUnavailable: to be tried again.
    """
    state = (await partition.read_snapshot()).state
    if (
        _belongs_to_other_archive(state, identity)
        and await partition.lease_holder() == state.archive_id
    ):
        raise LeaseLost(
            f"the flusher of archive {state.archive_id} holds this partition's lease. Is it"
            " another installation's? Then set another BUSYAPI_KEY_PREFIX here"
        )
    check_config(state, identity, config, partition.keys.prefix)
    return await partition.acquire_lease()


def _belongs_to_other_archive(state: PartitionState, archive: Identity) -> bool:
    return state.archive_id not in {"", archive.archive_id, archive.replaces}


def check_config(
    state: PartitionState, archive: Identity, config: PartitionConfig, prefix: str
) -> None:
    """Compare what was fixed at install.

    Raises:
        LossSuspected: the partition was seeded from another archive.
        PartitionMismatch: another number of partitions, or another prefix of the keys.
    """
    if archive.prefix not in {"", prefix}:
        raise PartitionMismatch(
            f"this archive was seeded under the key prefix {archive.prefix}, BUSYAPI_KEY_PREFIX"
            f" says {prefix}: set it to {archive.prefix}; it is fixed at install, and usages that"
            " are not archived yet have keys that begin with it"
        )
    if state.partitions not in {None, config.partitions}:
        raise PartitionMismatch(
            f"Redis was installed with {state.partitions} partitions, BUSYAPI_PARTITIONS says"
            f" {config.partitions}: the number is fixed at install"
        )
    if _belongs_to_other_archive(state, archive):
        raise LossSuspected(
            f"Redis was seeded from archive {state.archive_id}, this volume holds archive"
            f" {archive.archive_id}; seq {state.archived} was archived in the other. Mount that"
            " one; if it is another installation's, set another BUSYAPI_KEY_PREFIX here; or, to"
            f" continue with this one, type: {_accept_loss_command(config, state.archived)}"
            f" --replaces {state.archive_id} --reason '…'"
        )


def _accept_loss_command(config: PartitionConfig, through: Seq) -> str:
    return f"busyapi archive accept-loss --partition {config.partition} --through {through}"


def check_archive_complete(
    state: PartitionState, writer: PartitionWriter, config: PartitionConfig
) -> None:
    """Compare how far the archive is with how far it was.

    Raises:
        LossSuspected: it lacks what Redis or its own files speak of.
    """
    known = max(state.archived, writer.stats.highest_seq)
    if known > writer.cursor:
        raise LossSuspected(
            f"usages up to seq {known} were archived, but this archive ends at seq"
            f" {writer.cursor}: {_describe_missing(writer, known)}. Mount the right one; or,"
            f" to give up what is missing, type: {_accept_loss_command(config, known)} --reason '…'"
        )


def _describe_missing(writer: PartitionWriter, known: Seq) -> str:
    """Say what is missing: all behind the cursor, or seqs that whole files follow."""
    first, *more = writer.find_holes(known)
    if first.last >= known:
        return "an empty, wrong, older or damaged volume"
    seqs = sum(each.last - each.first + 1 for each in more)
    return (
        f"seqs {first.first} to {first.last} are missing{f', and {seqs} more' if more else ''};"
        f" the next whole file begins at seq {first.last + 1}: files were damaged or deleted"
    )


def check_original_known(
    snapshot: PartitionSnapshot, writer: PartitionWriter, config: PartitionConfig
) -> None:
    """Check that the server knows how far the original of a copied archive was.

    The copy does not know which ids were given out after it was made: cursor + bound limits those
    of the original. Only the server that its flusher had vouched for knows, if it still runs.

    Raises:
        LossSuspected: nothing shows it.
    """
    state = snapshot.state
    alive = state.epoch and state.run_id == snapshot.server.run_id
    # `check_archive_complete` sees afterwards whether something is missing up to `archived`.
    if (
        alive
        and state.archive_id == writer.identity.archive_id
        and (state.seq or 0) >= writer.cursor
    ):
        return
    known = max(state.archived, state.seq or 0, writer.stats.highest_seq)
    least = f", at least that of seq {known}," if known > writer.cursor else ""
    raise LossSuspected(
        f"this archive is a copy, as of a backup, that ends at seq {writer.cursor}, and Redis is"
        " not the server that the original was seeded on: which ids were given out since is not"
        " known here. If a later copy or the original exists, mount it. If not, find the highest id"
        f"{least} that any device or log has, and type: busyapi archive restored --partition"
        f" {config.partition} --last-id ID"
    )
