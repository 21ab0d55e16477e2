"""Which partitions an archive should have, and which of them can be read.

Each partition.json says how many partitions there are, so one that is left names those that are
missing. Where each partition has a volume of its own, a folder holds only one: then `only` says
which.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from busyapi.archive import high_water, identity, paths
from busyapi.archive_cli.snapshot import ArchiveNotFound, ArchivePartition
from busyapi.errors import ArchiveDamaged


class PartitionStatus(NamedTuple):
    """Where a partition is, or should be."""

    number: int
    partition: ArchivePartition | None
    """None if it cannot be read."""
    problem: str = ""
    """What is wrong: "missing", "damaged", or "" if nothing is."""
    error: str = ""
    """The same in a sentence."""


def find_partitions(root: Path, only: int | None = None) -> list[PartitionStatus]:
    """Look for every partition of an archive, or for one of them.

    Raises:
        ArchiveNotFound: there is none.
    """
    if not root.is_dir():
        raise ArchiveNotFound(f"{root} is no folder")
    looked = (
        _inspect_folder(number, path) for number, path in paths.partition_folders(root).items()
    )
    places = {place.number: place for place in looked if place}
    if not places:
        raise ArchiveNotFound(
            f"{root} holds no archive: no folder p00 with a {paths.IDENTITY_NAME}"
        )
    counts = Counter(
        each.partition.identity.partitions for each in places.values() if each.partition
    )
    partitions = counts.most_common(1)[0][0] if counts else 0
    numbers = sorted({*places, *range(partitions)}) if only is None else [only]
    return [
        _check_agreement(places[number], partitions)
        if number in places
        else _make_missing(root, number, partitions)
        for number in numbers
    ]


def _inspect_folder(number: int, folder: Path) -> PartitionStatus | None:
    """Look at one folder; None if nothing was ever written there."""
    path = folder / paths.IDENTITY_NAME
    try:
        found = identity.read_identity(folder)
    except (ArchiveDamaged, OSError) as error:
        return PartitionStatus(number, None, "damaged", str(error))
    if found is None:
        if not paths.list_files(folder, number).files and not high_water.has_mark(folder):
            return None
        return PartitionStatus(number, None, "damaged", f"{path} is missing")
    if found.partition != number:
        return PartitionStatus(
            number, None, "damaged", f"{path} is that of partition {found.partition}"
        )
    return PartitionStatus(number, ArchivePartition(folder, found))


def _make_missing(root: Path, number: int, partitions: int) -> PartitionStatus:
    folder = paths.partition_folder(root, number)
    of = f" of {partitions}" if partitions else ""
    return PartitionStatus(
        number,
        None,
        "missing",
        f"partition {number}{of}: {folder} is not there, or empty (where each partition has a"
        " volume of its own, check one with --partition)",
    )


def _check_agreement(place: PartitionStatus, partitions: int) -> PartitionStatus:
    if place.partition is None or place.partition.identity.partitions == partitions:
        return place
    said = place.partition.identity.partitions
    trouble = (
        f"{place.partition.folder / paths.IDENTITY_NAME} says that there are {said} partitions,"
        f" others say {partitions}"
    )
    return place._replace(problem="damaged", error=trouble)
