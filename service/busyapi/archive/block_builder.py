"""Build one block from batches: check, render, compress."""

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from busyapi.archive.compression import compress
from busyapi.archive.format import BlockHeader, UsageBatch, render_lines
from busyapi.ids import Seq

MAX_RECEIVED_MS = 253_402_300_799_999
"""The end of the year 9999, the last time that RFC 3339 can express."""


class BuiltBlock(NamedTuple):
    """A block that is ready to be written."""

    header: BlockHeader
    data: bytes
    raw_bytes: int
    """Bytes of its lines, uncompressed."""


class AppendStats(NamedTuple):
    """The figures of one append."""

    usages: int
    raw_bytes: int
    """Bytes of the lines, uncompressed."""
    bytes: int
    """Bytes written."""
    write_seconds: float
    """Time to render, compress and write."""
    sync_seconds: float


class BlockBuilder:
    """Builds the blocks of one writer, one at a time."""

    def __init__(self) -> None:
        self._lines = bytearray()
        """Memory for the lines of a block, kept for the next one: to get its pages from the kernel
        for each block would take as long as to render the lines."""

    def build(self, batches: Sequence[UsageBatch], partition: int, stride: int) -> BuiltBlock:
        """Build one block from batches that follow each other.

        Raises:
            ValueError: the batches do not follow each other, or cannot be rendered as lines.
        """
        _check_batches(batches)
        size = 0
        for piece in render_lines(batches, partition, stride):
            self._lines[size : size + len(piece)] = piece
            size += len(piece)
        with memoryview(self._lines) as all_lines, all_lines[:size] as lines:
            data = compress(lines)
        times = [batch.received_ms for batch in batches]
        header = BlockHeader(
            partition,
            stride,
            batches[0].first,
            batches[-1].last,
            min(times),
            max(times),
            len(data),
            crc32(data),
        )
        return BuiltBlock(header, data, size)


def _check_batches(batches: Sequence[UsageBatch]) -> None:
    next_seq = batches[0].first
    for batch in batches:
        if batch.first != next_seq or batch.last < batch.first:
            raise ValueError(f"the batch of seqs {batch.first} to {batch.last} is out of order")
        if not 0 <= batch.received_ms <= MAX_RECEIVED_MS:
            raise ValueError(f"seq {batch.first} has an invalid receivedAt: {batch.received_ms}")
        next_seq = Seq(batch.last + 1)
