"""partition.json: which partition of which archive a folder is, and two figures that only grow."""

import json
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, NamedTuple

from busyapi.archive import disk_reserve, high_water, paths
from busyapi.archive.checksum import MEMBER, add_checksum, has_valid_checksum
from busyapi.archive.file_birth import matches_birth, read_birth
from busyapi.archive.format_version import require_known_format
from busyapi.archive.fsync import translate_full_volume, write_small_file
from busyapi.errors import ArchiveDamaged, ArchiveFull, PartitionMismatch
from busyapi.ids import Seq

FORMAT_VERSION = 1
LEGACY_PREFIX = "busyapi"
"""What 0.2.0 named its keys with; it records no prefix, and drops one that it finds."""


class Identity(NamedTuple):
    """What a folder is. The first three never change."""

    archive_id: str
    partition: int
    partitions: int
    bound: int
    """The largest bound ever in force: no id given out before can lie beyond cursor + bound."""
    kept_from: Seq
    """Usages below it were deleted when their retention time was over."""
    is_seeded: bool = False
    """Ids may have been given out that this archive is to hold: an empty Redis has lost them."""
    replaces: str = ""
    """The archive that a person said this one stands in for."""
    file_birth: str = ""
    """The birth of the partition.json that says this, "" in what 0.2.0 wrote."""
    is_copy: bool = False
    """That file is a copy: how far the original went after it was made is not known here."""
    prefix: str = ""
    """The first word of the keys in Redis that it was seeded under, "" before it was."""


def claim_identity(folder: Path, partition: int, partitions: int, bound: int) -> Identity:
    """Read the identity, or give one to a folder without files; grow its bound.

    The bound is on disk when this returns, before anything may be given out under it.

    Raises:
        PartitionMismatch: it is another partition, or one of another number of them.
        ArchiveDamaged: the identity is missing or cannot be read.
    """
    found = read_identity(folder)
    if found is None:
        if paths.list_files(folder, partition).files or high_water.has_mark(folder):
            raise ArchiveDamaged(
                f"{folder / paths.IDENTITY_NAME} is missing, but there are, or were, segments"
            )
        found = write_identity(
            folder, Identity(token_hex(16), partition, partitions, bound, Seq(1))
        )
    require_partition(found, folder, partition, partitions)
    if bound > found.bound:
        found = write_identity(folder, found._replace(bound=bound))
    if not found.file_birth:
        # 0.2.0 made it, or wrote it after us. Until there is room, a copy is not known as one.
        with suppress(ArchiveFull):
            found = write_identity(folder, found)
    return found


def require_partition(found: Identity, folder: Path, partition: int, partitions: int) -> None:
    """Check that a folder is this partition of so many.

    Raises:
        PartitionMismatch: it is not.
    """
    if (found.partition, found.partitions) != (partition, partitions):
        raise PartitionMismatch(
            f"{folder} is partition {found.partition} of {found.partitions}, not {partition} of"
            f" {partitions}: the number of partitions is fixed at install"
        )


def read_identity(folder: Path) -> Identity | None:
    """Read a folder's identity; None if it has none.

    Raises:
        ArchiveDamaged: it cannot be read.
        UnknownVersion: a later version wrote it.
    """
    path = folder / paths.IDENTITY_NAME
    try:
        with path.open("rb") as file:
            said = _parse_file(file)
            home = str(said.get("home", ""))
            restored = bool(home) and not matches_birth(home, file.fileno())
        require_known_format(said, str(path))
        if not has_valid_checksum(said):
            raise ArchiveDamaged(
                f"{path}: its checksum does not hold. If a person changed it, remove {MEMBER}"
            )
        if said["format"] != FORMAT_VERSION:
            raise ArchiveDamaged(f"{path} is of format {said['format']}, not {FORMAT_VERSION}")
        numbers = [said[name] for name in ("partition", "partitions", "bound", "keptFrom")]
        if not all(type(each) is int and each >= 0 for each in numbers):
            raise ArchiveDamaged(f"{path} cannot be read: a figure is none")
        partition, partitions, bound, kept_from = numbers
        return Identity(
            str(said["archive"]),
            partition,
            partitions,
            bound,
            Seq(kept_from),
            bool(said["seeded"]),
            str(said["replaces"]),
            home,
            restored,
            str(said.get("prefix", LEGACY_PREFIX if said["seeded"] else "")),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveDamaged(f"{path} cannot be read: {type(error).__name__}") from error


def _parse_file(file: BinaryIO) -> Any:
    """Parse the file; once more if that fails, for it may have been changed in place meanwhile."""
    with suppress(ValueError):
        if has_valid_checksum(said := json.loads(file.read())):
            return said
    file.seek(0)
    return json.loads(file.read())


def write_identity(folder: Path, identity: Identity) -> Identity:
    """Put an identity on disk, in place of the one before; return it with its new home.

    A copy stays known as one: it keeps the home of the original until `is_copy` is taken away.

    On a full volume the reserve is given up for it, or the members that the file has are changed
    in place: cleaning must not need space.

    Raises:
        ArchiveFull, FsyncFailed: the one before is still there.
    """
    path = folder / paths.IDENTITY_NAME
    home = identity.file_birth

    def said(fd: int) -> bytes:
        nonlocal home
        home = home if identity.is_copy else read_birth(fd)
        members = add_checksum(_make_members(identity._replace(file_birth=home)))
        return json.dumps(members, indent=2).encode() + b"\n"

    def write_new() -> None:
        with translate_full_volume(folder):
            write_small_file(path, said)

    try:
        disk_reserve.retry_with_reserve(folder, write_new)
    except ArchiveFull:
        # Birth, and so home, stay those of the file.
        current = read_identity(folder)
        # A file of 0.2.0 has no room for a prefix either.
        changed = (identity.is_copy, identity.prefix)
        if current is None or (current.is_copy, current.prefix) != changed:
            raise
        home = current.file_birth
        disk_reserve.overwrite_members(path, _make_members(identity._replace(file_birth=home)))
    return identity._replace(file_birth=home)


def _make_members(identity: Identity) -> dict[str, Any]:
    return {
        "format": FORMAT_VERSION,
        "archive": identity.archive_id,
        "partition": identity.partition,
        "partitions": identity.partitions,
        "bound": identity.bound,
        "keptFrom": identity.kept_from,
        "seeded": identity.is_seeded,
        "replaces": identity.replaces,
        "home": identity.file_birth,
        "prefix": identity.prefix,
    }
