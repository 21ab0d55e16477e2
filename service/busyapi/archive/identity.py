"""partition.json: which partition of which archive a folder is, and two figures that only grow."""

import json
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, NamedTuple

from busyapi.archive import highwater, names, reserve
from busyapi.archive.birth import birth, is_birth
from busyapi.archive.checksum import MEMBER, holds, with_checksum
from busyapi.archive.durable import full_named, write_small
from busyapi.archive.versions import require_known_format
from busyapi.errors import ArchiveDamaged, ArchiveFull, PartitionMismatch
from busyapi.ids import Seq

FORMAT = 1
FIRST_PREFIX = "busyapi"
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
    seeded: bool = False
    """Ids may have been given out that this archive is to hold: an empty Redis has lost them."""
    replaces: str = ""
    """The archive that a person said this one stands in for."""
    home: str = ""
    """The birth of the partition.json that says this, "" in what 0.2.0 wrote."""
    restored: bool = False
    """That file is a copy: how far the original went after it was made is not known here."""
    prefix: str = ""
    """The first word of the keys in Redis that it was seeded under, "" before it was."""


def claim(folder: Path, partition: int, partitions: int, bound: int) -> Identity:
    """Read the identity, or give one to a folder without files; grow its bound.

    The bound is on disk when this returns, before anything may be given out under it.

    Raises:
        PartitionMismatch: it is another partition, or one of another number of them.
        ArchiveDamaged: the identity is missing or cannot be read.
    """
    found = read(folder)
    if found is None:
        if names.list_files(folder, partition).files or highwater.is_there(folder):
            raise ArchiveDamaged(
                f"{folder / names.IDENTITY} is missing, but there are, or were, segments"
            )
        found = write(folder, Identity(token_hex(16), partition, partitions, bound, Seq(1)))
    require(found, folder, partition, partitions)
    if bound > found.bound:
        found = write(folder, found._replace(bound=bound))
    if not found.home:
        # 0.2.0 made it, or wrote it after us. Until there is room, a copy is not known as one.
        with suppress(ArchiveFull):
            found = write(folder, found)
    return found


def require(found: Identity, folder: Path, partition: int, partitions: int) -> None:
    """Check that a folder is this partition of so many.

    Raises:
        PartitionMismatch: it is not.
    """
    if (found.partition, found.partitions) != (partition, partitions):
        raise PartitionMismatch(
            f"{folder} is partition {found.partition} of {found.partitions}, not {partition} of"
            f" {partitions}: the number of partitions is fixed at install"
        )


def read(folder: Path) -> Identity | None:
    """Read a folder's identity; None if it has none.

    Raises:
        ArchiveDamaged: it cannot be read.
        UnknownVersion: a later version wrote it.
    """
    path = folder / names.IDENTITY
    try:
        with path.open("rb") as file:
            said = _parse(file)
            home = str(said.get("home", ""))
            restored = bool(home) and not is_birth(home, file.fileno())
        require_known_format(said, str(path))
        if not holds(said):
            raise ArchiveDamaged(
                f"{path}: its checksum does not hold. If a person changed it, remove {MEMBER}"
            )
        if said["format"] != FORMAT:
            raise ArchiveDamaged(f"{path} is of format {said['format']}, not {FORMAT}")
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
            str(said.get("prefix", FIRST_PREFIX if said["seeded"] else "")),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveDamaged(f"{path} cannot be read: {type(error).__name__}") from error


def _parse(file: BinaryIO) -> Any:
    """Parse the file; once more if that fails, for it may have been changed in place meanwhile."""
    with suppress(ValueError):
        if holds(said := json.loads(file.read())):
            return said
    file.seek(0)
    return json.loads(file.read())


def write(folder: Path, identity: Identity) -> Identity:
    """Put an identity on disk, in place of the one before; return it with its new home.

    A copy stays known as one: it keeps the home of the original until `restored` is taken away.

    On a full volume the reserve is given up for it, or the members that the file has are changed
    in place: cleaning must not need space.

    Raises:
        ArchiveFull, SyncFailed: the one before is still there.
    """
    path = folder / names.IDENTITY
    home = identity.home

    def said(fd: int) -> bytes:
        nonlocal home
        home = home if identity.restored else birth(fd)
        members = with_checksum(_members(identity._replace(home=home)))
        return json.dumps(members, indent=2).encode() + b"\n"

    def write_new() -> None:
        with full_named(folder):
            write_small(path, said)

    try:
        reserve.with_reserve(folder, write_new)
    except ArchiveFull:
        # Birth, and so home, stay those of the file.
        current = read(folder)
        # A file of 0.2.0 has no room for a prefix either.
        changed = (identity.restored, identity.prefix)
        if current is None or (current.restored, current.prefix) != changed:
            raise
        home = current.home
        reserve.overwrite(path, _members(identity._replace(home=home)))
    return identity._replace(home=home)


def _members(identity: Identity) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "archive": identity.archive_id,
        "partition": identity.partition,
        "partitions": identity.partitions,
        "bound": identity.bound,
        "keptFrom": identity.kept_from,
        "seeded": identity.seeded,
        "replaces": identity.replaces,
        "home": identity.home,
        "prefix": identity.prefix,
    }
