"""Where an export goes: checked before any work, and complete when it gets its name.

The data goes to a temporary file or folder beside the target, which is renamed at the end. So a
target that is not an ordinary file is refused: a rename would replace a device, such as /dev/null,
by a file.
"""

import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, Protocol

from busyapi.archive.fsync import sync_folder
from busyapi.archive.paths import TEMPORARY_SUFFIX
from busyapi.errors import ArchiveError
from busyapi.output import flush_output, write_output


class ByteSink(Protocol):
    """What an export is written to."""

    def write(self, data: bytes, /) -> object:
        """Write all of the data."""


class WrongTarget(ArchiveError):
    """This file cannot be written."""


@contextmanager
def open_target(target: Path, *, replace: bool = False) -> Iterator[BinaryIO]:
    """Yield a file to write, which gets the target's name when the context ends without an error.

    With `replace`, an existing file is replaced and keeps its mode. If the target is a symbolic
    link, the file that it points to is replaced and the link stays.

    Raises:
        WrongTarget: the target cannot be written; nothing was done.
        OSError: it could not be written completely; the error names the target.
        FsyncFailed: it is complete, but its name may not survive a power cut.
    """
    path, mode = check_file_target(target, replace=replace)
    temporary = _name_temporary(path)
    try:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
    except OSError as error:
        raise _make_unwritable(target, path, error) from None
    with _named_errors(target, temporary):
        try:
            with os.fdopen(fd, "wb") as file:
                if mode is not None:
                    os.fchmod(fd, mode)
                yield file
                file.flush()
                os.fsync(fd)
            if mode is None:
                _publish(temporary, path)
            else:
                temporary.rename(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def open_folder(target: Path) -> Iterator[Path]:
    """Yield a folder to write to, which gets the target's name when the context ends.

    The caller syncs the files in it. Raises as `open_target`.
    """
    path = check_folder_target(target)
    temporary = _name_temporary(path)
    try:
        temporary.mkdir(mode=0o750)
    except OSError as error:
        raise _make_unwritable(target, path, error) from None
    with _named_errors(target, temporary):
        try:
            yield temporary
            for folder in [*temporary.iterdir(), temporary]:
                sync_folder(folder)
            temporary.rename(path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def open_output() -> Iterator[ByteSink]:
    """Yield standard output.

    Raises:
        WrongTarget: it is a terminal.
    """
    check_output()
    yield _Output()
    flush_output()


def check_output() -> None:
    """Check that standard output is not a terminal.

    Raises:
        WrongTarget: it is.
    """
    if sys.stdout.isatty():
        raise WrongTarget("standard output is a terminal: redirect it to a file or a pipe")


def check_file_target(target: Path, *, replace: bool) -> tuple[Path, int | None]:
    """Return the path of the file to write, and the mode of the one that is replaced, if any.

    Raises:
        WrongTarget: it must not be written.
    """
    path = _resolve(target)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if target.is_symlink() and not replace:
            raise WrongTarget(_describe_link(target, path)) from None
        _require_parent(target, path)
        return path, None
    except OSError as error:
        raise WrongTarget(f"{target}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        raise WrongTarget(f"{target} is a folder: name a file in it")
    if not stat.S_ISREG(mode) or Path("/dev") in target.absolute().parents:
        raise WrongTarget(
            f"{target} is a device, a pipe or a socket: name an ordinary file, or - for standard"
            " output"
        )
    if not replace and target.is_symlink():
        raise WrongTarget(_describe_link(target, path))
    if not replace:
        raise WrongTarget(f"{target} exists: name another file, or add --replace")
    if not os.access(path, os.W_OK):
        raise WrongTarget(f"{target} exists and is write-protected: name another file")
    return path, stat.S_IMODE(mode)


def check_folder_target(target: Path) -> Path:
    """Return the path of the folder to make; raise as `check_file_target`."""
    path = _resolve(target)
    if os.path.lexists(target):
        raise WrongTarget(f"{target} exists: name a new folder, in which each day gets a folder")
    _require_parent(target, path)
    return path


def _publish(temporary: Path, path: Path) -> None:
    """Rename a file, but replace no file that another process has made meanwhile."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(error.errno, "exists", str(path)) from None
        temporary.rename(path)


_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""Errors of file systems without hard links."""


def _resolve(target: Path) -> Path:
    try:
        return target.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links
        raise WrongTarget(f"{target}: {error}") from None


def _require_parent(target: Path, path: Path) -> None:
    if not path.parent.is_dir():
        raise WrongTarget(f"{target}: {path.parent} is not a folder")


def _describe_link(target: Path, path: Path) -> str:
    return (
        f"{target} is a symbolic link to {path}: name that file, or add --replace to write it and"
        " keep the link"
    )


def _name_temporary(path: Path) -> Path:
    return path.with_name(f".busyapi-export-{token_hex(8)}{TEMPORARY_SUFFIX}")


def _make_unwritable(target: Path, path: Path, error: OSError) -> WrongTarget:
    return WrongTarget(f"{target}: no file can be created in {path.parent}: {error.strerror}")


@contextmanager
def _named_errors(target: Path, temporary: Path) -> Iterator[None]:
    """Let an error of the temporary file or folder name the target."""
    try:
        yield
    except FileExistsError:
        raise WrongTarget(f"{target} was made by another process: it is not replaced") from None
    except OSError as error:
        name = error.filename
        if name is not None and not str(name).startswith(str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from None


class _Output:
    """Standard output, whose errors name the file that it goes to."""

    def write(self, data: bytes) -> None:
        write_output(data)
