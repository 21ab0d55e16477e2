"""Detection of files of a later format version: unknown is not damaged.

A file that a later version wrote is never set aside, salvaged or truncated. The caller stops, and
the error says which busyapi is needed. If only the version byte is damaged, the rest of the file
still has the magic of this version: such a file counts as damaged, not as unknown.
"""

import os
from importlib.metadata import version
from typing import Any

from busyapi.archive.format import BLOCK_SIZE, MAGIC, decode_block_header
from busyapi.archive.reader import scan_headers
from busyapi.errors import UnknownVersion

_WORD, _VERSION = MAGIC[:-1], MAGIC[-1]
NEWEST_FORMAT = 2
"""Segments of format 2 have no version of their own: partition.json has it."""
_CHUNK_BYTES = 1 << 20
_MAGIC_OFFSET = 8
"""After the magic and length of the skippable frame that a segment begins with."""


def require_known_version(fd: int, name: str) -> None:
    """Check that a segment, finished or open, is not of another version.

    Raises:
        UnknownVersion: it is; the message names the file.
    """
    head = os.pread(fd, BLOCK_SIZE, 0)
    at = _MAGIC_OFFSET + len(_WORD)
    if head[_MAGIC_OFFSET:at] != _WORD or len(head) <= at or head[at] == _VERSION:
        return
    if _occurs_after(fd, head[_MAGIC_OFFSET : at + 1], at):
        raise unknown_version(name, head[at])
    as_current = head[:at] + MAGIC[-1:] + head[at + 1 :]
    tail = os.pread(fd, len(MAGIC), max(0, os.fstat(fd).st_size - len(MAGIC)))
    if (
        decode_block_header(as_current) is None
        and tail != MAGIC
        and next(scan_headers(fd), None) is None
    ):
        raise unknown_version(name, head[at])


def _occurs_after(fd: int, magic: bytes, offset: int) -> bool:
    """Return whether a magic occurs again after an offset.

    Damage rarely changes two bytes in the same way.
    """
    while chunk := os.pread(fd, _CHUNK_BYTES, offset):
        if magic in chunk:
            return True
        if len(chunk) < len(magic):
            return False
        offset += len(chunk) - len(magic) + 1
    return False


def require_known_format(content: Any, name: str) -> None:
    """Check that the `format` of a small file is not a later one.

    Raises:
        UnknownVersion: it is; the message names the file.
    """
    number = content.get("format") if isinstance(content, dict) else None
    if type(number) is int and number > NEWEST_FORMAT:
        raise unknown_version(name, number)


def unknown_version(name: str, number: int) -> UnknownVersion:
    """Return the error for a file of this format number."""
    return UnknownVersion(
        f"{name} is of format {number}, and busyapi {version('busyapi')} reads formats 1 to"
        f" {NEWEST_FORMAT}: start the busyapi that wrote it, or a later one. Nothing was changed"
    )
