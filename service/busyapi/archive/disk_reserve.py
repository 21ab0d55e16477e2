"""Reserved space: on a full volume it lets retention delete files, and a shutdown write a footer.

Raising the retention floor must be possible on a full volume. `.reserve` occupies space that no
segment can use. It is deleted when the volume is full, and created again when there is space. An
archive that was full before it had a reserve can still delete: its partition.json is overwritten in
place.
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
"""More than partition.json and the footer of an hour's segment need."""
_SECTOR_BYTES = 512
"""A disk writes a sector completely or not at all."""


def create_reserve(folder: Path) -> None:
    """Create the reserve if the volume has space for it twice; ignore every failure.

    An existing reserve gets the space that it lacks: the process that created it may have died
    before it allocated any.
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
    """Call `write`; if the volume is full, release the reserve and call it once more.

    Raises:
        ArchiveFull: there was no reserve, or its space is not enough.
    """
    try:
        return write()
    except ArchiveFull:
        if not release_reserve(folder):
            raise
    return write()


def overwrite_members(path: Path, changes: dict[str, Any]) -> None:
    """Change members of a small JSON file in place, which needs no space.

    The file keeps its length and fits into one sector, so a power cut leaves the old or the new
    content. Members that the file does not have are not added.

    Raises:
        ArchiveFull: the file is larger than a sector, or shorter than its new content.
        FsyncFailed: what the disk holds is unknown.
    """
    fd = os.open(path, os.O_RDWR)
    try:
        size = os.fstat(fd).st_size
        members = json.loads(os.pread(fd, size, 0))
        members |= {name: value for name, value in changes.items() if name in members}
        members = add_checksum(members) if MEMBER in members else members
        data = json.dumps(members, separators=(",", ":")).encode()
        if size > _SECTOR_BYTES or len(data) >= size:
            raise ArchiveFull(f"{path}: {os.strerror(errno.ENOSPC)}")
        failpoint("archive-overwrite")
        write_at(fd, data.ljust(size - 1) + b"\n", 0)
        sync_file(fd, path.name)
    finally:
        os.close(fd)
