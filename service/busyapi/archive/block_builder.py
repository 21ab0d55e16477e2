"""From batches to one block: checked, rendered, compressed."""

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from busyapi.archive.compression import compress
from busyapi.archive.format import BlockHeader, UsageBatch, render_lines
from busyapi.ids import Seq
from busyapi.usage_json import MAX_RECEIVED_MS


class BuiltBlock(NamedTuple):
    """A block that is ready to be written."""

    block: BlockHeader
    data: bytes
    raw_bytes: int
    """Bytes of its lines, uncompressed."""


class AppendStats(NamedTuple):
    """The figures of one append."""

    usages: int
    raw_bytes: int
    """Bytes of the lines."""
    bytes: int
    """Bytes written."""
    write_seconds: float
    """Rendering, compressing and writing."""
    sync_seconds: float


def build_block(batches: Sequence[UsageBatch], partition: int, partitions: int) -> BuiltBlock:
    """Make one block of batches that follow each other.

    Raises:
        ValueError: they do not, or what they hold cannot be lines.
    """
    _check_batches(batches)
    first, last = batches[0].first, batches[-1].last
    lines = render_lines(batches, partition, partitions)
    if lines.count(b"\n") != last - first + 1:
        raise ValueError(f"a usage of seqs {first} to {last} holds a newline")
    data = compress(lines)
    times = [each.received_ms for each in batches]
    block = BlockHeader(
        partition, partitions, first, last, min(times), max(times), len(data), crc32(data)
    )
    return BuiltBlock(block, data, len(lines))


def _check_batches(batches: Sequence[UsageBatch]) -> None:
    following = batches[0].first
    for each in batches:
        if each.first != following or len(each.usages) != each.last - each.first + 1:
            raise ValueError(f"the batch of seqs {each.first} to {each.last} is not whole")
        if not 0 <= each.received_ms <= MAX_RECEIVED_MS:
            raise ValueError(f"seq {each.first} was received at no time: {each.received_ms}")
        following = Seq(each.last + 1)
