"""The strides of a flusher's partition: with which it begins, and when it widens them.

docs/explanation/partitions.md proves that no id comes twice. The order matters: partition.json has
new strides before Redis has them, and no commit succeeds in between.
"""

import asyncio
from collections.abc import Iterable

from busyapi.archive.writer import PartitionWriter
from busyapi.errors import NotSeeded, PartitionMismatch, WaitingForParent
from busyapi.flusher.ownership import PartitionConfig
from busyapi.ids import Seq
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.reader import read_record
from busyapi.stream.state import PartitionState
from busyapi.strides import Strides, begin_child, parent_of, stride_for


async def settle_strides(
    partition: OwnedPartition,
    writer: PartitionWriter,
    config: PartitionConfig,
    state: PartitionState,
) -> None:
    """Put on disk which strides the partition has, before it is seeded.

    Raises:
        NotSeeded, WaitingForParent: it is a new partition, and the one that it waits for is not
            ready.
        PartitionMismatch: Redis and the archive contradict each other.
        RedisUnavailable, LeaseLost, ArchiveTakenOver: try again.
    """
    own = writer.identity.strides
    strides = state.strides
    if strides is None:
        if not writer.identity.is_new:
            return
        strides = await _find_first_strides(partition, config)
    elif not (writer.identity.is_new or strides.extends(own)):
        if own.extends(strides):
            return  # the caller makes ids jump
        raise PartitionMismatch(
            f"Redis records the strides {strides.encode()}, this archive {own.encode()}: the"
            " archive belongs to another installation. Mount the right volume"
        )
    if strides != own:
        update = asyncio.to_thread(writer.update_identity, strides=strides)
        await partition.await_with_lease(update)


async def _find_first_strides(partition: OwnedPartition, config: PartitionConfig) -> Strides:
    if config.partition == 0:
        # Its record may be lost, while others remember the number at install.
        base = await _find_base(partition, range(1, config.partitions)) or config.partitions
    else:
        base = await _find_base(partition, [0]) or 0
    if not base:
        raise NotSeeded(
            "waiting for the flusher of partition 0, which records the number of partitions"
        )
    parent = parent_of(config.partition, base)
    if parent is None:
        return Strides.fixed(base)
    state = await _read_state(partition, parent)
    recorded = state.strides if state else None
    strides = recorded and begin_child(config.partition, config.partitions, recorded)
    if not strides:
        raise WaitingForParent(
            f"waiting for the flusher of partition {parent}: its ids have to leave room for those"
            f" of partition {config.partition}"
        )
    if not state or state.total <= config.partition:
        # API processes whose BUSYAPI_REDIS_URL lacks this partition must not count without it.
        raise WaitingForParent(
            f"waiting for the flusher of partition {parent}: it has to record that partition"
            f" {config.partition} exists. It does at its next start, with BUSYAPI_PARTITIONS above"
            f" {config.partition}"
        )
    return strides


async def _find_base(partition: OwnedPartition, numbers: Iterable[int]) -> int | None:
    for number in numbers:
        if strides := await _read_strides(partition, number):
            return strides.base
    return None


async def _read_strides(partition: OwnedPartition, number: int) -> Strides | None:
    """Return the strides of another partition, None if it has no record."""
    state = await _read_state(partition, number)
    return state.strides if state else None


async def _read_state(partition: OwnedPartition, number: int) -> PartitionState | None:
    """Return the record of another partition, None if it belongs to another installation."""
    state = await read_record(partition.servers.find(number), number)
    return state if state.installation in {"", partition.installation} else None


def find_wider_stride(writer: PartitionWriter, config: PartitionConfig) -> int | None:
    """Return the stride that the setting needs, None if the partition's is wide enough."""
    strides = writer.identity.strides
    stride = stride_for(config.partitions, strides.base)
    return stride if stride > strides.stride else None


async def widen_stride(
    partition: OwnedPartition, writer: PartitionWriter, config: PartitionConfig, first: Seq
) -> None:
    """Put a wider stride on disk from a seq on, if the setting needs one. Commits must be stopped.

    Raises:
        RedisUnavailable, LeaseLost, ArchiveTakenOver: as `OwnedPartition.renew_lease`.
    """
    if stride := find_wider_stride(writer, config):
        strides = writer.identity.strides.widen(first, stride)
        update = asyncio.to_thread(writer.update_identity, strides=strides)
        await partition.await_with_lease(update)
