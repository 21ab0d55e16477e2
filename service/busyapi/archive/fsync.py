"""Durable changes: when one of these functions returns, the change survives a power cut.

Every fsync of the archive is in this module. A failed fsync is never repeated: the kernel may have
dropped the pages that it could not write, and would then report the next fsync as a success.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from busyapi.archive.paths import TEMPORARY_SUFFIX
from busyapi.errors import ArchiveFull, FsyncFailed
from busyapi.failpoints import failpoint

_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}
_NO_FOLDER_SYNC = {errno.EINVAL, errno.EBADF}
"""Errors of file systems that keep folders safe without an fsync, or cannot sync them."""


@contextmanager
def translate_full_volume(folder: Path) -> Iterator[None]:
    """Translate the errors "no space" and "over quota".

    Raises:
        ArchiveFull: instead of such an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_ERRNOS:
            raise ArchiveFull(f"{folder}: {os.strerror(error.errno)}") from error
        raise


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of the data, even if the kernel writes it in parts."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written


def sync_file(fd: int, name: str) -> None:
    """Put a file's data and size on disk.

    Raises:
        FsyncFailed: what the disk holds is unknown.
    """
    try:
        failpoint("archive-sync")
        os.fdatasync(fd)
    except OSError as error:
        raise FsyncFailed(f"fdatasync of {name}: {os.strerror(error.errno or 0)}") from error


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk.

    Raises:
        FsyncFailed: what the disk holds is unknown. A folder that cannot be opened counts too: an
            earlier rename in it must not count as undone.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            failpoint("archive-sync-folder")
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise FsyncFailed(f"fsync of {folder}: {os.strerror(error.errno or 0)}") from error


def make_folder(folder: Path) -> None:
    """Create a folder and the folders above it.

    The parent is synced even if the folder exists: the process that created it may have died before
    it synced the parent.
    """
    if not folder.parent.is_dir():
        make_folder(folder.parent)
    folder.mkdir(mode=0o750, exist_ok=True)
    sync_folder(folder.parent)


def create_file(path: Path) -> int:
    """Create a file and put its name on disk; return its descriptor."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
    try:
        sync_folder(path.parent)
    except BaseException:
        os.close(fd)
        raise
    return fd


def rename_file(old: Path, new: Path) -> None:
    """Rename a file within its folder. The caller has synced the file's content."""
    failpoint("archive-before-rename")
    old.rename(new)
    failpoint("archive-after-rename")
    sync_folder(new.parent)


def write_small_file(path: Path, data: bytes | Callable[[int], bytes]) -> None:
    """Write a small file so that it exists completely or not at all.

    If the data describes the file itself, pass a function that makes it from the descriptor.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    try:
        failpoint("archive-write-small")
        write_at(fd, data if isinstance(data, bytes) else data(fd), 0)
        sync_file(fd, path.name)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()  # on a full volume every block counts
        raise
    finally:
        os.close(fd)
    rename_file(temporary, path)
