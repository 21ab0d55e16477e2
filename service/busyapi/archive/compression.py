"""The door to zstandard: lines to one frame, and back."""

import zstandard

from busyapi.errors import ArchiveDamaged

COMPRESSION_LEVEL = 1
"""Usages resemble each other: levels 2 to 4 take longer and save nothing, 6 takes six times as
long and saves a twentieth."""


def compress(lines: bytes) -> bytes:
    """Make one frame that knows its content's size and checksum."""
    return zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True).compress(lines)


def decompress(frame: bytes) -> bytes:
    """Return what one frame holds.

    Raises:
        ArchiveDamaged: it is no frame, or not the frame that was written.
    """
    try:
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ArchiveDamaged(f"zstd: {error}") from error


def read_content_size(frame: bytes) -> int:
    """Return how many bytes a frame says it holds, without decompressing it."""
    return zstandard.get_frame_parameters(frame).content_size
