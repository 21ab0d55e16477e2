"""Files of another version of the format: unknown is not broken.

A file that this version cannot read because a later one wrote it is never set aside, salvaged or
cut: the caller stops, and says which busyapi is needed. Rot in the one byte that has the version is
told from it by the rest of the file, which still has the marks of this version.
"""

import os
from importlib.metadata import version
from typing import Any

from busyapi.archive.format import BLOCK_SIZE, MAGIC, decode_block_header
from busyapi.archive.reader import scan_frames
from busyapi.errors import UnknownVersion

_WORD, _VERSION = MAGIC[:-1], MAGIC[-1]
_CHUNK = 1 << 20
_MARK_AT = 8
"""Behind magic and length of the skippable frame that a segment begins with."""


def require_known_version(fd: int, name: str) -> None:
    """Check that a segment, finished or open, is not of another version.

    Raises:
        UnknownVersion: it is; the message names the file.
    """
    head = os.pread(fd, BLOCK_SIZE, 0)
    at = _MARK_AT + len(_WORD)
    if head[_MARK_AT:at] != _WORD or len(head) <= at or head[at] == _VERSION:
        return
    if _has_again(fd, head[_MARK_AT : at + 1], at):
        raise unknown_version(name, head[at])
    as_ours = head[:at] + MAGIC[-1:] + head[at + 1 :]
    tail = os.pread(fd, len(MAGIC), max(0, os.fstat(fd).st_size - len(MAGIC)))
    if (
        decode_block_header(as_ours) is None
        and tail != MAGIC
        and next(scan_frames(fd), None) is None
    ):
        raise unknown_version(name, head[at])


def _has_again(fd: int, mark: bytes, offset: int) -> bool:
    """Return whether a mark stands behind an offset too: rot would have to strike twice."""
    while chunk := os.pread(fd, _CHUNK, offset):
        if mark in chunk:
            return True
        if len(chunk) < len(mark):
            return False
        offset += len(chunk) - len(mark) + 1
    return False


def require_known_format(said: Any, name: str) -> None:
    """Check that a small file's `format` is not a later one.

    Raises:
        UnknownVersion: it is; the message names the file.
    """
    found = said.get("format") if isinstance(said, dict) else None
    if type(found) is int and found > _VERSION:
        raise unknown_version(name, found)


def unknown_version(name: str, found: int) -> UnknownVersion:
    """Make the error."""
    return UnknownVersion(
        f"{name} is of format {found}, and busyapi {version('busyapi')} reads format {_VERSION}"
        " only: start the busyapi that wrote it, or a later one. Nothing was changed"
    )
