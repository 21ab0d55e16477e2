"""Compression of lines to one zstd frame, and back. Only this module uses zstandard."""

import threading
from typing import NamedTuple

import zstandard

from busyapi.errors import ArchiveDamaged

COMPRESSION_LEVEL = 1
"""Usages resemble each other. Levels 2 to 4 take longer and save nothing; level 6 takes six times
as long and saves 5 %."""


class _PerThread(threading.local):
    """What a thread keeps, because it takes longer to make than to use for a small frame."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()


_per_thread = _PerThread()


def compress(lines: bytes | memoryview) -> bytes:
    """Return one frame, with content size and content checksum."""
    return zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True).compress(lines)


def decompress(frame: bytes) -> bytes:
    """Return the content of one frame.

    Raises:
        ArchiveDamaged: the bytes are not a frame, or differ from what was written.
    """
    try:
        return _per_thread.decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ArchiveDamaged(f"zstd: {error}") from error
    except MemoryError as error:
        raise ArchiveDamaged("zstd: the frame states a size beyond the memory") from error


class FrameParameters(NamedTuple):
    """What the header of a frame states."""

    header_bytes: int
    content_bytes: int
    has_checksum: bool
    needs_dictionary: bool


def parse_frame_header(head: bytes) -> FrameParameters:
    """Parse the first bytes of a frame.

    Raises:
        ArchiveDamaged: they are not the header of a frame, or not all of it.
    """
    try:
        stated = zstandard.get_frame_parameters(head)
        size = zstandard.frame_header_size(head)
    except zstandard.ZstdError as error:
        raise ArchiveDamaged(f"zstd: {error}") from error
    return FrameParameters(size, stated.content_size, stated.has_checksum, stated.dict_id != 0)


def decompress_beginning(data: bytes) -> bytes:
    """Return the content of the beginning of a frame.

    Raises:
        ArchiveDamaged: the bytes are not the beginning of a frame.
    """
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError as error:
        raise ArchiveDamaged(f"zstd: {error}") from error


def read_content_size(frame: bytes) -> int:
    """Return the content size that a frame states, without decompressing it."""
    return zstandard.get_frame_parameters(frame).content_size
