"""The names of the archive's folders and files. Only this module makes and parses them.

    <root>/p00/partition.json
               .lock
               highwater                                            the largest seq it ever held
               verified.json                                        the last scheduled verification
               holders.json                                         who has every acknowledged usage
               accepted-primary.json                                what an operator accepts
               .reserve                                             space for deletions, no data
               2026-11-23/usages-p00-<first>-<last>.ndjson.zst      a finished segment
                          _usages-p00-<first>-<last>.index          its index (format 2)
                          usages-p00-<first>-open.ndjson.zst        the open segment (format 2)
                          _usages-p00-<first>-open.index            its index
                          usages-p00-<first>.ndjson.zst.open        the open segment (format 1)
                          gap-p00-<from>-<to>.json                  seqs that were skipped
                          quarantine-p00-<first>-<last>.bin         an unreadable entry
                          usages-p00-<first>-<last>.ndjson.zst.damaged   set aside, never deleted
                          usages-p00-<first>-<last>.ndjson.zst.torn      set aside, doubtful end

Seqs have 16 digits, as many as 2^53, so names sort like seqs.
"""

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from busyapi.ids import Seq

IDENTITY_NAME = "partition.json"
LOCK_NAME = ".lock"
RESERVE_NAME = ".reserve"
HIGH_WATER_NAME = "highwater"
VERIFIED_NAME = "verified.json"
HOLDERS_NAME = "holders.json"
ACCEPTED_PRIMARY_NAME = "accepted-primary.json"
UNKNOWN_SEQ = Seq(0)
"""The last seq of an open segment, whose name does not contain it."""
TEMPORARY_SUFFIX = ".tmp"
"""Ends the name of an incomplete file: recovery removes it, readers skip it."""


class FileKind(StrEnum):
    """The kinds of files in the archive."""

    SEGMENT = "segment"
    OPEN = "open"
    GAP = "gap"
    QUARANTINE = "quarantine"
    DAMAGED = "damaged"
    DOUBTFUL = "doubtful"
    """An open segment with a doubtful end, set aside. The suffix of its file, `.torn`, is an old
    name for a doubtful end: a segment whose end is merely torn is not set aside."""


class ArchiveFile(NamedTuple):
    """One file and the seqs in its name. The last seq of an open segment is UNKNOWN_SEQ."""

    first: Seq
    last: Seq
    kind: FileKind
    path: str
    """Relative to the partition's folder: day/name."""

    @property
    def day(self) -> str:
        """The UTC day on which it was created, YYYY-MM-DD."""
        return self.path.partition("/")[0]

    @property
    def seq_count(self) -> int:
        """The number of seqs in the name."""
        return self.last - self.first + 1


_PARTITION = re.compile(r"p(\d{2,})")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_FILE = re.compile(
    r"(usages|gap|quarantine)-p(\d{2,})-(\d{16})(?:-(\d{16}|open))?(\.[a-z.]+)"
    r"(?:(?:(?<=damaged)|(?<=torn))\d+)?"
)
_KINDS = {
    ("usages", ".ndjson.zst"): FileKind.SEGMENT,
    ("usages", ".ndjson.zst.open"): FileKind.OPEN,
    ("usages", ".ndjson.zst.damaged"): FileKind.DAMAGED,
    ("usages", ".ndjson.zst.torn"): FileKind.DOUBTFUL,
    ("gap", ".json"): FileKind.GAP,
    ("quarantine", ".bin"): FileKind.QUARANTINE,
}
_INDEX = re.compile(r"_usages-p(\d{2,})-(\d{16})-(\d{16}|open)\.index")
_ENDS = {kind: (stem, end) for (stem, end), kind in _KINDS.items()}


def partition_folder(root: Path, partition: int) -> Path:
    """Return the folder of one partition."""
    return root / f"p{partition:02d}"


def partition_folders(root: Path) -> dict[int, Path]:
    """Return the folders of the partitions below a root, by number."""
    matches = [(_PARTITION.fullmatch(path.name), path) for path in root.iterdir() if path.is_dir()]
    folders = sorted((int(match[1]), path) for match, path in matches if match)
    # p001 is an operator's copy of p01, and must not replace it.
    return {number: path for number, path in folders if path == partition_folder(root, number)}


def utc_day(seconds: float | None = None) -> str:
    """Return the UTC day of a time in seconds since 1970, by default of the current time."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def name_file(
    kind: FileKind, day: str, partition: int, first: Seq, last: Seq = UNKNOWN_SEQ
) -> ArchiveFile:
    """Return a file with the name that belongs to these values."""
    stem, end = _ENDS[kind]
    to = "" if kind is FileKind.OPEN else f"-{last:016d}"
    return ArchiveFile(first, last, kind, f"{day}/{stem}-p{partition:02d}-{first:016d}{to}{end}")


def name_open_segment(day: str, partition: int, first: Seq) -> ArchiveFile:
    """Return an open segment of format 2, whose name matches the pattern of finished ones.

    Recovery gives it the name of format 1 first, which does not: so no reader finds its usages
    twice, in it and in the copy.
    """
    path = f"{day}/usages-p{partition:02d}-{first:016d}-open.ndjson.zst"
    return ArchiveFile(first, UNKNOWN_SEQ, FileKind.OPEN, path)


def index_path(file: ArchiveFile) -> str:
    """Return the path of a segment's index, relative to the partition's folder.

    That of an open segment is the same under both of its names.
    """
    day, _, name = file.path.partition("/")
    stem = name.partition(".")[0]
    if file.kind is FileKind.OPEN:
        stem = f"{stem.removesuffix('-open')}-open"
    return f"{day}/_{stem}.index"


def parse_file_name(day: str, name: str, partition: int) -> ArchiveFile | None:
    """Parse a file's name; return None if it is not a file of this partition."""
    match = _FILE.fullmatch(name)
    if not match or int(match[2]) != partition:
        return None
    kind = _KINDS.get((match[1], match[5]))
    if match[4] == "open":
        return (
            name_open_segment(day, partition, Seq(int(match[3])))
            if kind is FileKind.SEGMENT
            else None
        )
    if kind is None or (kind is FileKind.OPEN) != (match[4] is None):
        return None
    first, last = Seq(int(match[3])), Seq(int(match[4] or 0))
    return ArchiveFile(first, last, kind, f"{sys.intern(day)}/{name}")


class FolderListing(NamedTuple):
    """The content of a partition's day folders."""

    files: list[ArchiveFile]
    """The files of the archive, ordered by seq."""
    other_paths: list[str]
    """day/name of every other file: temporary and unknown files."""
    index_paths: list[str]
    """day/name of every index."""


def list_files(folder: Path, partition: int) -> FolderListing:
    """List a partition's files by their names, without opening them."""
    return parse_names(scan_names(folder), partition)


def parse_names(names: Iterable[tuple[str, str]], partition: int) -> FolderListing:
    """Return the files of a partition with these days and names."""
    files, others, indexes = [], [], []
    for day, name in names:
        if file := parse_file_name(day, name, partition):
            files.append(file)
        elif (match := _INDEX.fullmatch(name)) and int(match[1]) == partition:
            indexes.append(f"{day}/{name}")
        else:
            others.append(f"{day}/{name}")
    return FolderListing(sorted(files), others, indexes)


def scan_names(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield day and name of each file in the day folders."""
    with os.scandir(folder) as days:
        for day in days:
            if _DAY.fullmatch(day.name):
                with os.scandir(day.path) as entries:
                    yield from ((day.name, entry.name) for entry in entries)
