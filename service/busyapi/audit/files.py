"""The names of the trail's files. Only this module makes and parses them.

<root>/p00/audit/audit-p00-2026-11-29-0001.ndjson     the records of a day, or a part of them
                 head                                 number and hash of the last record
                 salt                                 the key of the digests of patient ids
                 .lock                                held while a process appends
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from busyapi.archive.fsync import make_folder
from busyapi.archive.paths import partition_folder, partition_folders

FOLDER_NAME = "audit"
HEAD_NAME = "head"
SALT_NAME = "salt"

_FILE = re.compile(r"audit-p(\d{2,})-(\d{4}-\d\d-\d\d)-(\d{4,})\.ndjson")


class AuditFile(NamedTuple):
    """One file. Files are ordered by day and number."""

    day: str
    number: int
    path: Path

    @property
    def name(self) -> str:
        """Its name within the folder."""
        return self.path.name


def audit_folder(root: Path, partition: int) -> Path:
    """Return the folder of a partition's trail."""
    return partition_folder(root, partition) / FOLDER_NAME


def find_trails(root: Path) -> dict[int, Path]:
    """Return the folders of the trails below a root, by partition."""
    if not root.is_dir():
        return {}
    folders = {number: path / FOLDER_NAME for number, path in partition_folders(root).items()}
    return {number: folder for number, folder in folders.items() if folder.is_dir()}


def name_file(folder: Path, partition: int, day: str, number: int) -> AuditFile:
    """Return the file with this number of a day."""
    return AuditFile(day, number, folder / f"audit-p{partition:02d}-{day}-{number:04d}.ndjson")


def list_files(folder: Path, partition: int) -> list[AuditFile]:
    """List a trail's files, oldest first."""
    files = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            match = _FILE.fullmatch(entry.name)
            if match and int(match[1]) == partition:
                files.append(AuditFile(match[2], int(match[3]), folder / entry.name))
    return sorted(files)


def make_audit_folder(folder: Path) -> None:
    """Create the folder of a trail, if it does not exist."""
    if folder.is_dir():
        return
    make_folder(folder)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        give_to_owner(fd, folder.parent)
    finally:
        os.close(fd)


def give_to_owner(fd: int, folder: Path) -> None:
    """Change the owner of a new file to that of its folder: root may run a command too."""
    if os.geteuid() == 0:
        status = folder.stat()
        os.fchown(fd, status.st_uid, status.st_gid)
