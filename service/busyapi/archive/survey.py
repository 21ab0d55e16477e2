"""Which partitions an archive should have, and which of them can be read.

Each partition.json says how many partitions there are, so one that is left names those that are
missing. Where each partition has a volume of its own, a folder holds only one: then `only` says
which.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from busyapi.archive import highwater, identity, names
from busyapi.archive.browse import NoArchive, Partition
from busyapi.errors import ArchiveDamaged


class Place(NamedTuple):
    """Where a partition is, or should be."""

    number: int
    partition: Partition | None
    """None if it cannot be read."""
    kind: str = ""
    """What is wrong: "missing", "damaged", or "" if nothing is."""
    trouble: str = ""
    """The same in a sentence."""


def survey(root: Path, only: int | None = None) -> list[Place]:
    """Look for every partition of an archive, or for one of them.

    Raises:
        NoArchive: there is none.
    """
    if not root.is_dir():
        raise NoArchive(f"{root} is no folder")
    looked = (_look(number, path) for number, path in names.partition_folders(root).items())
    places = {place.number: place for place in looked if place}
    if not places:
        raise NoArchive(f"{root} holds no archive: no folder p00 with a {names.IDENTITY}")
    counts = Counter(
        each.partition.identity.partitions for each in places.values() if each.partition
    )
    partitions = counts.most_common(1)[0][0] if counts else 0
    numbers = sorted({*places, *range(partitions)}) if only is None else [only]
    return [
        _agreeing(places[number], partitions)
        if number in places
        else _missing(root, number, partitions)
        for number in numbers
    ]


def _look(number: int, folder: Path) -> Place | None:
    """Look at one folder; None if nothing was ever written there."""
    path = folder / names.IDENTITY
    try:
        found = identity.read(folder)
    except (ArchiveDamaged, OSError) as error:
        return Place(number, None, "damaged", str(error))
    if found is None:
        if not names.list_files(folder, number).files and not highwater.is_there(folder):
            return None
        return Place(number, None, "damaged", f"{path} is missing")
    if found.partition != number:
        return Place(number, None, "damaged", f"{path} is that of partition {found.partition}")
    return Place(number, Partition(folder, found))


def _missing(root: Path, number: int, partitions: int) -> Place:
    folder = names.partition_folder(root, number)
    of = f" of {partitions}" if partitions else ""
    return Place(
        number,
        None,
        "missing",
        f"partition {number}{of}: {folder} is not there, or empty (where each partition has a"
        " volume of its own, check one with --partition)",
    )


def _agreeing(place: Place, partitions: int) -> Place:
    if place.partition is None or place.partition.identity.partitions == partitions:
        return place
    said = place.partition.identity.partitions
    trouble = (
        f"{place.partition.folder / names.IDENTITY} says that there are {said} partitions,"
        f" others say {partitions}"
    )
    return place._replace(kind="damaged", trouble=trouble)
