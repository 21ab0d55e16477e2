"""partition.json: which partition of which archive a folder is, and two figures that only grow."""

import json
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from busyapi.archive import names
from busyapi.archive.durable import write_small
from busyapi.errors import ArchiveDamaged, PartitionMismatch
from busyapi.ids import Seq

FORMAT = 1


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


def claim(folder: Path, partition: int, partitions: int, bound: int) -> Identity:
    """Read the identity, or give one to a folder without files; grow its bound.

    The bound is on disk when this returns, before anything may be given out under it.

    Raises:
        PartitionMismatch: it is another partition, or one of another number of them.
        ArchiveDamaged: the identity is missing or cannot be read.
    """
    found = read(folder)
    if found is None:
        if names.list_files(folder, partition).files:
            raise ArchiveDamaged(f"{folder / names.IDENTITY} is missing, but there are segments")
        found = Identity(token_hex(16), partition, partitions, bound, Seq(1))
        write(folder, found)
    if (found.partition, found.partitions) != (partition, partitions):
        raise PartitionMismatch(
            f"{folder} is partition {found.partition} of {found.partitions}, not {partition} of"
            f" {partitions}: the number of partitions is fixed at install"
        )
    if bound > found.bound:
        found = found._replace(bound=bound)
        write(folder, found)
    return found


def read(folder: Path) -> Identity | None:
    """Read a folder's identity; None if it has none.

    Raises:
        ArchiveDamaged: it cannot be read.
    """
    path = folder / names.IDENTITY
    try:
        said = json.loads(path.read_bytes())
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
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveDamaged(f"{path} cannot be read: {type(error).__name__}") from error


def write(folder: Path, identity: Identity) -> None:
    """Put an identity on disk, in place of the one before."""
    said = {
        "format": FORMAT,
        "archive": identity.archive_id,
        "partition": identity.partition,
        "partitions": identity.partitions,
        "bound": identity.bound,
        "keptFrom": identity.kept_from,
        "seeded": identity.seeded,
        "replaces": identity.replaces,
    }
    write_small(folder / names.IDENTITY, json.dumps(said, indent=2).encode() + b"\n")
