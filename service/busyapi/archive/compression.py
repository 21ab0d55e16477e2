"""Compression of lines to one zstd frame, and back. Only this module uses zstandard."""

import zstandard

from busyapi.errors import ArchiveDamaged

COMPRESSION_LEVEL = 1
"""Usages resemble each other. Levels 2 to 4 take longer and save nothing; level 6 takes six times
as long and saves 5 %."""


def compress(lines: bytes) -> bytes:
    """Return one frame, with content size and content checksum."""
    return zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True).compress(lines)


def decompress(frame: bytes) -> bytes:
    """Return the content of one frame.

    Raises:
        ArchiveDamaged: the bytes are not a frame, or differ from what was written.
    """
    try:
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ArchiveDamaged(f"zstd: {error}") from error


def read_content_size(frame: bytes) -> int:
    """Return the content size that a frame states, without decompressing it."""
    return zstandard.get_frame_parameters(frame).content_size
