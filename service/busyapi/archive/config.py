"""The settings of one partition's archive."""

from pathlib import Path
from typing import NamedTuple

from busyapi.archive.format_version import NEWEST_FORMAT
from busyapi.archive.paths import partition_folder


class ArchiveConfig(NamedTuple):
    """Where a partition's archive is, when its segments are finished and how long they are kept."""

    root: Path
    partition: int
    partitions: int
    bound: int
    """Maximum of issued, unarchived usages. The identity records the largest ever used."""
    segment_bytes: int
    """A segment of this size is finished."""
    segment_age: float
    """A segment this many seconds old is finished. At midnight UTC every segment is finished."""
    retention_days: int
    """Days after which files are deleted; 0 keeps all files."""
    format: int = NEWEST_FORMAT
    """The format of new segments, unless the archive already has a later one."""

    @property
    def folder(self) -> Path:
        """The folder of the partition."""
        return partition_folder(self.root, self.partition)
