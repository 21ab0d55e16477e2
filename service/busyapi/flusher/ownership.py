"""Checks whether this archive may own the partition in Redis, before it is acquired and seeded.

`acquire_lease` comes first: it makes the checks that need no recovery of the archive, and then
acquires the lease. Nothing in this module changes an archive.
"""

from typing import NamedTuple

from busyapi.archive.identity import Identity
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import LeaseLost, LossSuspected, PartitionMismatch, RedisUnavailable
from busyapi.ids import Seq
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.reader import read_record
from busyapi.stream.snapshot import PartitionSnapshot
from busyapi.stream.state import PartitionState


class PartitionConfig(NamedTuple):
    """The partition and its settings."""

    partition: int
    partitions: int
    bound: int
    tier: str


async def acquire_lease(
    partition: OwnedPartition, identity: Identity, config: PartitionConfig
) -> bool:
    """Acquire the lease if this archive may own the partition; return whether it held it already.

    Raises:
        LossSuspected: the partition was seeded from another archive.
        PartitionMismatch: as `check_config`.
        LeaseLost: another flusher owns the partition; try again on the same object.
        RedisUnavailable: try again.
    """
    snapshot = await partition.read_snapshot()
    state = snapshot.state
    if (
        _belongs_to_other_archive(state, identity)
        and await partition.lease_holder() == state.archive_id
    ):
        raise LeaseLost(
            f"the flusher of archive {state.archive_id} holds this partition's lease. If it"
            " belongs to another installation, set another BUSYAPI_KEY_PREFIX here"
        )
    check_config(state, identity, config, partition.endpoint)
    if snapshot.is_empty:
        await _check_other_servers(partition, config)
        if not identity.is_new:  # a new partition may have to wait: `seed` checks it then
            await check_own_server(partition, config)
    return await partition.acquire_lease()


async def _check_other_servers(partition: OwnedPartition, config: PartitionConfig) -> None:
    """Check, on a server without the partition, that no other server has it.

    Raises:
        PartitionMismatch: one has it, with usages that may not be archived yet.
        RedisUnavailable: one does not answer.
    """
    for endpoint in partition.servers.list_others(config.partition):
        state = await read_record(endpoint, config.partition)
        if state.archive_id:
            own, other = partition.endpoint.first_partition, endpoint.first_partition
            raise PartitionMismatch(
                f"BUSYAPI_REDIS_URL places partition {config.partition} on a server that does not"
                f" have it, and the server of partition {other} has it: the addresses of the"
                f" servers of partitions {own} and {other} are exchanged. Correct them"
            )


async def check_own_server(partition: OwnedPartition, config: PartitionConfig) -> None:
    """Check, on a server without the partition, that it has no partition of another server.

    If it has, BUSYAPI_REDIS_URL names one server twice, also under two host names of one address;
    or an entry was removed, and its partitions got the address of the next one.

    Raises:
        PartitionMismatch: it has one.
        RedisUnavailable: the server does not answer.
    """
    own = partition.endpoint
    for number in range(config.partitions):
        try:
            state = await read_record(own, number)
        except RedisUnavailable:
            if own.mode == "cluster":  # one that has lost a shard starts again without it
                continue
            raise
        if state.archive_id and state.server != own.first_partition:
            raise PartitionMismatch(
                f"BUSYAPI_REDIS_URL places partition {config.partition}, of the server whose lowest"
                f" partition is {own.first_partition}, on a server that does not have it but has"
                f" partition {number}, of the server whose lowest is {state.server}: one server is"
                " named twice, or an entry was removed and its address is that of another. Give"
                f" partition {config.partition} its own server: the one that it had, or if it is"
                " new, or if that server and its data are lost, an empty one. One server cannot"
                " take over the partitions of another, because their usages may wait there"
            )


def _belongs_to_other_archive(state: PartitionState, archive: Identity) -> bool:
    return state.archive_id not in {"", archive.archive_id, archive.replaces}


def check_config(
    state: PartitionState, archive: Identity, config: PartitionConfig, endpoint: Endpoint
) -> None:
    """Compare the settings that are fixed at install.

    Raises:
        LossSuspected: the partition was seeded from another archive.
        PartitionMismatch: the installation cannot have so few partitions, or the archive has
            another prefix or server.
    """
    if archive.prefix not in {"", endpoint.prefix}:
        raise PartitionMismatch(
            f"this archive was seeded under the key prefix {archive.prefix}, BUSYAPI_KEY_PREFIX"
            f" says {endpoint.prefix}: set it to {archive.prefix}. It is fixed at install, and"
            " usages under it may not be archived yet"
        )
    if archive.prefix and archive.server != endpoint.first_partition:
        raise PartitionMismatch(
            f"BUSYAPI_REDIS_URL moves partition {archive.partition} from the server whose lowest"
            f" partition is {archive.server} to the one whose lowest is {endpoint.first_partition}:"
            " put it back. A partition never moves, because usages on its server may not be"
            " archived yet"
        )
    if state.strides and config.partitions < state.strides.base:
        raise PartitionMismatch(
            f"Redis was installed with {state.strides.base} partitions, BUSYAPI_PARTITIONS says"
            f" {config.partitions}: it cannot be less than at install"
        )
    if _belongs_to_other_archive(state, archive):
        raise LossSuspected(
            f"Redis was seeded from archive {state.archive_id}, this volume holds archive"
            f" {archive.archive_id}; the other has usages up to seq {state.archived}. Mount the"
            " other; or, if it belongs to another installation, set another BUSYAPI_KEY_PREFIX"
            " here; or, to continue with this one, type:"
            f" {_accept_loss_command(config, state.archived)}"
            f" --replaces {state.archive_id} --reason '…'"
        )


def _accept_loss_command(config: PartitionConfig, through: Seq) -> str:
    return f"busyapi archive accept-loss --partition {config.partition} --through {through}"


def check_archive_complete(
    state: PartitionState, writer: PartitionWriter, config: PartitionConfig
) -> None:
    """Compare the archive's cursor with the highest seq that is known to have been archived.

    Raises:
        LossSuspected: the archive is missing usages that Redis or its own files refer to.
    """
    known = max(state.archived, writer.stats.highest_seq)
    if known > writer.cursor:
        raise LossSuspected(
            f"usages up to seq {known} were archived, but this archive ends at seq"
            f" {writer.cursor}: {_describe_missing(writer, known)}. Mount the right volume;"
            " or, to give up the missing usages, type:"
            f" {_accept_loss_command(config, known)} --reason '…'"
        )


def _describe_missing(writer: PartitionWriter, known: Seq) -> str:
    """Return what is missing: all after the cursor, or seqs that intact files follow."""
    first, *more = writer.find_holes(known)
    if first.last >= known:
        return "an empty, wrong, older or damaged volume"
    seqs = sum(hole.last - hole.first + 1 for hole in more)
    return (
        f"seqs {first.first} to {first.last} are missing{f', and {seqs} more' if more else ''};"
        f" the next intact file begins at seq {first.last + 1}: files were damaged or deleted"
    )


def check_original_known(
    snapshot: PartitionSnapshot, writer: PartitionWriter, config: PartitionConfig
) -> None:
    """Check that the server knows the cursor of the archive that a restored copy was made from.

    The copy does not know which ids were issued after it was made: the limit is cursor + bound of
    the original. Only the server that the original was seeded on knows it, if it still runs.

    Raises:
        LossSuspected: the server does not know it.
    """
    state = snapshot.state
    is_same_server = state.epoch and state.server_id == snapshot.server.server_id
    # `check_archive_complete` then checks whether usages are missing up to `archived`.
    if (
        is_same_server
        and state.archive_id == writer.identity.archive_id
        and (state.seq or 0) >= writer.cursor
    ):
        return
    known = max(state.archived, state.seq or 0, writer.stats.highest_seq)
    minimum = f", at least that of seq {known}," if known > writer.cursor else ""
    raise LossSuspected(
        f"this archive is a copy (for example a restored backup) that ends at seq {writer.cursor},"
        " and Redis is not the server that the original was seeded on, so it does not know which"
        " ids were issued since. If a later copy or the original exists, mount it. If not, find the"
        f" highest id{minimum} that any device or log has, and type: busyapi archive"
        f" confirm-restore --partition {config.partition} --last-id ID"
    )
