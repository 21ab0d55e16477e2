"""holders.json: the servers that hold every acknowledged usage, in the tier `replicated`.

    <root>/p00/holders.json        {"holders": ["10.0.0.1:6379"], "raised": [], "crc": "…"}

A failover promotes only one of them. The file is in the archive, because each of the servers may be
lost, or may be behind and not know it. A server enters it after it has confirmed everything, and
leaves it before any commit is confirmed without it.
"""

import json
from pathlib import Path
from typing import NamedTuple

from busyapi.archive import disk_reserve, paths
from busyapi.archive.checksum import add_checksum, has_valid_checksum
from busyapi.archive.fsync import sync_folder, translate_full_volume, write_small_file
from busyapi.errors import ArchiveDamaged


class Holders(NamedTuple):
    """The addresses of servers."""

    holders: frozenset[str] = frozenset()
    """They hold every acknowledged usage. Empty: not known yet."""
    raised: frozenset[str] = frozenset()
    """Holders that a Sentinel may promote: the flusher raised their priority for a failover."""


def read_holders(folder: Path) -> Holders:
    """Return the content of the file; no holders if there is none.

    Raises:
        ArchiveDamaged: it cannot be read.
    """
    path = folder / paths.HOLDERS_NAME
    try:
        members = json.loads(path.read_bytes())
        if not has_valid_checksum(members):
            raise ArchiveDamaged(f"{path}: its checksum does not match")
        return Holders(frozenset(members["holders"]), frozenset(members["raised"]))
    except FileNotFoundError:
        return Holders()
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveDamaged(f"{path} cannot be read: {type(error).__name__}") from error


def write_holders(folder: Path, holders: Holders) -> None:
    """Put the holders on disk.

    Raises:
        ArchiveFull: the previous file is still on disk.
        FsyncFailed: what the disk holds is unknown.
    """
    members = {name: sorted(addresses) for name, addresses in holders._asdict().items()}
    data = json.dumps(add_checksum(members), indent=2).encode() + b"\n"

    def write() -> None:
        with translate_full_volume(folder):
            write_small_file(folder / paths.HOLDERS_NAME, data)

    disk_reserve.retry_with_reserve(folder, write)


def delete_holders(folder: Path) -> None:
    """Delete the file: another tier does not keep it up to date.

    Raises:
        FsyncFailed: what the disk holds is unknown.
    """
    path = folder / paths.HOLDERS_NAME
    if path.exists():
        path.unlink()
        sync_folder(folder)
