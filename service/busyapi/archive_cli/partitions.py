"""The partitions that an archive should have, and those that can be read.

Each partition.json holds the number of partitions at install, so one intact file is enough to find
which of them are missing. If each partition has its own volume, a folder holds only one: then
`only` selects it.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from busyapi.archive import high_water, identity, paths
from busyapi.archive_cli.snapshot import ArchiveNotFound, ArchivePartition
from busyapi.errors import ArchiveDamaged


class PartitionStatus(NamedTuple):
    """The state of a partition that an archive has or should have."""

    number: int
    partition: ArchivePartition | None
    """None if it cannot be read."""
    problem: str = ""
    """"missing", "damaged", or "" for no problem."""
    error: str = ""
    """The problem in a sentence."""


def find_partitions(root: Path, only: int | None = None) -> list[PartitionStatus]:
    """Return the state of every partition of an archive, or of one.

    Raises:
        ArchiveNotFound: the folder holds no archive, or its archive has no such partition.
    """
    if not root.is_dir():
        raise ArchiveNotFound(f"{root} is not a folder")
    inspected = (
        _inspect_folder(number, path) for number, path in paths.partition_folders(root).items()
    )
    statuses = {status.number: status for status in inspected if status}
    if not statuses:
        raise ArchiveNotFound(
            f"{root} holds no archive: no folder p00 with a {paths.IDENTITY_NAME}"
        )
    identities = [status.partition.identity for status in statuses.values() if status.partition]
    # What was never seeded has only a guess.
    seeded = [stored for stored in identities if not stored.is_new] or identities
    counts = Counter(stored.strides.base for stored in seeded)
    base = counts.most_common(1)[0][0] if counts else 0
    # Partitions that were added have higher numbers than those of the install.
    total = max(base, max(statuses) + 1) if base else 0
    widest = max([total, *(stored.strides.stride for stored in seeded)])
    if only is not None and only not in statuses and base and only not in range(widest):
        raise ArchiveNotFound(
            f"{root} has no partition {only}: its archive has the partitions 0 to {widest - 1}"
        )
    numbers = sorted({*statuses, *range(total)}) if only is None else [only]
    return [
        _check_agreement(statuses[number], base)
        if number in statuses
        else _make_missing(root, number, total)
        for number in numbers
    ]


def _inspect_folder(number: int, folder: Path) -> PartitionStatus | None:
    """Return the state of one folder; None if it was never written to."""
    path = folder / paths.IDENTITY_NAME
    try:
        stored = identity.read_identity(folder)
    except (ArchiveDamaged, OSError) as error:
        return PartitionStatus(number, None, "damaged", str(error))
    if stored is None:
        if not paths.list_files(folder, number).files and not high_water.has_mark(folder):
            return None
        return PartitionStatus(number, None, "damaged", f"{path} is missing")
    if stored.partition != number:
        return PartitionStatus(
            number, None, "damaged", f"{path} is that of partition {stored.partition}"
        )
    return PartitionStatus(number, ArchivePartition(folder, stored))


def _make_missing(root: Path, number: int, partitions: int) -> PartitionStatus:
    folder = paths.partition_folder(root, number)
    total = f" of {partitions}" if partitions else ""
    return PartitionStatus(
        number,
        None,
        "missing",
        f"partition {number}{total}: {folder} does not exist or is empty (if each partition has its"
        " own volume, select one with --partition)",
    )


def _check_agreement(status: PartitionStatus, base: int) -> PartitionStatus:
    if status.partition is None:
        return status
    stored = status.partition.identity
    number = stored.strides.base
    if number == base or stored.is_new:
        return status
    error = (
        f"{status.partition.folder / paths.IDENTITY_NAME} says that there were {number} partitions"
        f" at install, others say {base}"
    )
    return status._replace(problem="damaged", error=error)
