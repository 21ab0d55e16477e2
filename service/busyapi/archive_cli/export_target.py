"""The file that an export writes: checked before any work, and complete when it gets its name.

The data goes to a temporary file in the same folder, which is renamed at the end. So a target that
is not an ordinary file is refused: a rename would replace a device, such as /dev/null, by a file.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from busyapi.archive.fsync import sync_folder
from busyapi.archive.paths import TEMPORARY_SUFFIX
from busyapi.errors import ArchiveError


class WrongTarget(ArchiveError):
    """This file cannot be written."""


@contextmanager
def open_target(target: Path) -> Iterator[BinaryIO]:
    """Yield a file to write; it replaces the target when the context ends without an error.

    If the target is a symbolic link, the file that it points to is replaced and the link stays. An
    existing file keeps its mode.

    Raises:
        WrongTarget: the target cannot be written; nothing was done.
        OSError: it could not be written completely; the error names the target.
        FsyncFailed: it is complete, but its name may not survive a power cut.
    """
    path = target.resolve()
    mode = _check_target(target, path)
    temporary = path.with_name(f".busyapi-export-{token_hex(8)}{TEMPORARY_SUFFIX}")
    try:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise WrongTarget(
            f"{target}: no file can be created in {path.parent}: {error.strerror}"
        ) from None
    try:
        with os.fdopen(fd, "wb") as file:
            if mode is not None:
                os.fchmod(fd, mode)
            yield file
            file.flush()
            os.fsync(fd)
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        if error.filename not in {None, str(temporary)}:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from None
    finally:
        temporary.unlink(missing_ok=True)


def _check_target(target: Path, path: Path) -> int | None:
    """Return the mode of the existing file, None if there is none."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise WrongTarget(f"{target}: {path.parent} is not a folder") from None
        return None
    except OSError as error:
        raise WrongTarget(f"{target}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        raise WrongTarget(f"{target} is a folder: name a file in it")
    if not stat.S_ISREG(mode):
        raise WrongTarget(f"{target} is a device, a pipe or a socket: name an ordinary file")
    if not os.access(path, os.W_OK):
        raise WrongTarget(f"{target} exists and is write-protected: name another file")
    return stat.S_IMODE(mode)
