"""Making a change stay: what is on disk when each of these returns is there after a power cut.

Every fsync of the archive is in here. One that fails is never repeated: the kernel may have
dropped the pages it could not write, and would call the next fsync a success.
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
"""What file systems answer that keep folders safe without an fsync, or cannot."""


@contextmanager
def translate_full_volume(folder: Path) -> Iterator[None]:
    """Give "no space" and "over quota" their name.

    Raises:
        ArchiveFull: instead of the OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_ERRNOS:
            raise ArchiveFull(f"{folder}: {os.strerror(error.errno)}") from error
        raise


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of it, however the kernel splits it."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written


def sync_file(fd: int, name: str) -> None:
    """Put a file's data, and the size that reading it takes, on disk.

    Raises:
        FsyncFailed: what the disk holds is unknown.
    """
    try:
        failpoint("archive-sync")
        os.fdatasync(fd)
    except OSError as error:
        raise FsyncFailed(f"fdatasync of {name}: {os.strerror(error.errno or 0)}") from error


def sync_folder(folder: Path) -> None:
    """Put a folder's names on disk.

    Raises:
        FsyncFailed: what the disk holds is unknown; also where the folder cannot be opened, because
            what was renamed in it before must not count as undone.
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
    """Make a folder and those above it.

    The one above is synced also when the folder exists: who made it may have died before that.
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
    """Rename within a folder. The file's content must be synced before."""
    failpoint("archive-before-rename")
    old.rename(new)
    failpoint("archive-after-rename")
    sync_folder(new.parent)


def write_small_file(path: Path, data: bytes | Callable[[int], bytes]) -> None:
    """Write a small file so that it is there whole or not at all.

    Data that says something of the file itself is made from its descriptor.
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
