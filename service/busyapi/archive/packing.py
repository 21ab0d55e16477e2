"""From batches to one block: checked, rendered, compressed."""

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from busyapi.archive.format import Batch, Block, render
from busyapi.archive.frames import compress
from busyapi.ids import Seq

LATEST_MS = 253_402_300_799_999
"""The end of the year 9999: the last time that RFC 3339 can write."""


class Packed(NamedTuple):
    """A block that is ready to be written."""

    block: Block
    data: bytes
    raw_bytes: int
    """Bytes of its lines, uncompressed."""


class Flushed(NamedTuple):
    """The figures of one append."""

    usages: int
    raw_bytes: int
    """Bytes of the lines."""
    bytes: int
    """Bytes written."""
    write_seconds: float
    """Rendering, compressing and writing."""
    sync_seconds: float


def pack(batches: Sequence[Batch], partition: int, partitions: int) -> Packed:
    """Make one block of batches that follow each other.

    Raises:
        ValueError: they do not, or what they hold cannot be lines.
    """
    _check(batches)
    first, last = batches[0].first, batches[-1].last
    lines = render(batches, partition, partitions)
    if lines.count(b"\n") != last - first + 1:
        raise ValueError(f"a usage of seqs {first} to {last} holds a newline")
    data = compress(lines)
    times = [each.received_ms for each in batches]
    block = Block(
        partition, partitions, first, last, min(times), max(times), len(data), crc32(data)
    )
    return Packed(block, data, len(lines))


def _check(batches: Sequence[Batch]) -> None:
    following = batches[0].first
    for each in batches:
        if each.first != following or len(each.usages) != each.last - each.first + 1:
            raise ValueError(f"the batch of seqs {each.first} to {each.last} is not whole")
        if not 0 <= each.received_ms <= LATEST_MS:
            raise ValueError(f"seq {each.first} was received at no time: {each.received_ms}")
        following = Seq(each.last + 1)
