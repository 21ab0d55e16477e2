"""holders.json: the servers that hold every acknowledged usage, in the tier `replicated`.

    <root>/p00/holders.json           {"holders": {"10.0.0.1:6379": "…"}, "raised": [], "seq": 7, …}
               accepted-primary.json  {"server_id": "…", "crc": "…"}

A failover promotes only one of the holders. The file is in the archive, because each of the servers
may be lost, or may be behind and not know it. A server enters it after it has confirmed everything,
and leaves it before any commit is confirmed without it.

The second file exists for a moment: an operator names the one server process whose data counts from
now on (`busyapi archive accept-primary`), and the flusher forgets the holders.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from busyapi.archive import disk_reserve, paths
from busyapi.archive.checksum import add_checksum, has_valid_checksum
from busyapi.archive.fsync import sync_folder, translate_full_volume, write_small_file
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq

NO_SERVERS: Mapping[str, str] = MappingProxyType({})


class Holders(NamedTuple):
    """The servers with every acknowledged usage."""

    processes: Mapping[str, str] = NO_SERVERS
    """By address: the run_id that the server had when it confirmed everything. A process with
    another one has restarted, and may have lost its volume."""
    raised: frozenset[str] = frozenset()
    """Holders that a Sentinel may promote: the flusher raised their priority for a failover."""
    seq: Seq = Seq(0)
    """A seq that every holder has: the one at the last change."""
    replid: str = ""
    """The replication history in which they confirmed everything, "" if it is not known."""

    @property
    def addresses(self) -> frozenset[str]:
        """The addresses of the holders. Empty: not known yet."""
        return frozenset(self.processes)


def read_holders(folder: Path) -> Holders:
    """Return the content of the file; no holders if there is none.

    Raises:
        ArchiveDamaged: it cannot be read.
    """
    members = _read_members(folder / paths.HOLDERS_NAME)
    if members is None:
        return Holders()
    try:
        return Holders(
            {str(address): str(run_id) for address, run_id in members["holders"].items()},
            frozenset(map(str, members["raised"])),
            Seq(int(members["seq"])),
            str(members.get("replid", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveDamaged(
            f"{folder / paths.HOLDERS_NAME} cannot be read: {type(error).__name__}"
        ) from error


def write_holders(folder: Path, holders: Holders) -> None:
    """Put the holders on disk.

    Raises:
        ArchiveFull: the previous file is still on disk.
        FsyncFailed: what the disk holds is unknown.
    """
    members = {
        "holders": dict(sorted(holders.processes.items())),
        "raised": sorted(holders.raised),
        "seq": holders.seq,
        "replid": holders.replid,
    }
    _write_members(folder, paths.HOLDERS_NAME, members)


def delete_holders(folder: Path) -> bool:
    """Delete the file, which nothing keeps up to date any more; return whether it existed.

    Raises:
        FsyncFailed: what the disk holds is unknown.
    """
    return _delete(folder / paths.HOLDERS_NAME)


def read_accepted(folder: Path) -> str:
    """Return the id of the server process that an operator accepted, "" if there is none.

    Raises:
        ArchiveDamaged: it cannot be read.
    """
    members = _read_members(folder / paths.ACCEPTED_PRIMARY_NAME)
    return str(members.get("server_id", "")) if members else ""


def write_accepted(folder: Path, server_id: str) -> None:
    """Record the server process that an operator accepts; raises as `write_holders`."""
    _write_members(folder, paths.ACCEPTED_PRIMARY_NAME, {"server_id": server_id})


def delete_accepted(folder: Path) -> None:
    """Forget what an operator accepted; raises as `delete_holders`."""
    _delete(folder / paths.ACCEPTED_PRIMARY_NAME)


def _read_members(path: Path) -> dict[str, Any] | None:
    try:
        members = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ArchiveDamaged(f"{path} cannot be read: {type(error).__name__}") from error
    if not isinstance(members, dict) or not has_valid_checksum(members):
        raise ArchiveDamaged(f"{path}: its checksum does not match")
    return members


def _write_members(folder: Path, name: str, members: dict[str, Any]) -> None:
    data = json.dumps(add_checksum(members), indent=2).encode() + b"\n"

    def write() -> None:
        with translate_full_volume(folder):
            write_small_file(folder / name, data)

    disk_reserve.retry_with_reserve(folder, write)


def _delete(path: Path) -> bool:
    if not path.exists():
        return False
    path.unlink()
    sync_folder(path.parent)
    return True
