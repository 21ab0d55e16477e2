"""Room on a full volume for what makes room: raising the retention floor, and a footer at a stop.

`.reserve` holds space that no segment can take. It is deleted when the volume is full, and made
again when there is room. An archive that was full before it had one can still clean: its
partition.json is overwritten in place.
"""

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from busyapi.archive import paths
from busyapi.archive.checksum import MEMBER, add_checksum
from busyapi.archive.fsync import sync_file, write_at
from busyapi.errors import ArchiveFull
from busyapi.failpoints import failpoint

T = TypeVar("T")

RESERVE_BYTES = 1 << 18
"""More than partition.json and the footer of a segment of an hour need."""
_SECTOR = 512
"""What a disk writes whole or not at all."""


def create_reserve(folder: Path) -> None:
    """Make the reserve if there is twice its room; no failure matters.

    One that is there gets the space that it lacks: who made it may have died before it had any.
    """
    path = folder / paths.RESERVE_NAME
    with suppress(OSError):
        volume = os.statvfs(folder)
        if volume.f_bavail * volume.f_frsize < 2 * RESERVE_BYTES:
            return
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(fd)


def release_reserve(folder: Path) -> bool:
    """Delete the reserve; return whether there was one."""
    try:
        (folder / paths.RESERVE_NAME).unlink()
    except FileNotFoundError:
        return False
    return True


def retry_with_reserve(folder: Path, write: Callable[[], T]) -> T:
    """Call `write`; if the volume is full, give the reserve up and call it once more.

    Raises:
        ArchiveFull: there is no space without the reserve either.
    """
    try:
        return write()
    except ArchiveFull:
        if not release_reserve(folder):
            raise
    return write()


def overwrite_members(path: Path, changes: dict[str, Any]) -> None:
    """Change members of a small JSON file in place, which takes no space.

    The file keeps its length, and is one sector: a power cut leaves the old or the new content.
    Only members that it has are changed.

    Raises:
        ArchiveFull: it is larger than a sector, or the new content is longer than the file.
        FsyncFailed: what the disk holds is unknown.
    """
    fd = os.open(path, os.O_RDWR)
    try:
        size = os.fstat(fd).st_size
        said = json.loads(os.pread(fd, size, 0))
        said |= {name: value for name, value in changes.items() if name in said}
        said = add_checksum(said) if MEMBER in said else said
        data = json.dumps(said, separators=(",", ":")).encode()
        if size > _SECTOR or len(data) >= size:
            raise ArchiveFull(f"{path}: {os.strerror(errno.ENOSPC)}")
        failpoint("archive-overwrite")
        write_at(fd, data.ljust(size - 1) + b"\n", 0)
        sync_file(fd, path.name)
    finally:
        os.close(fd)
