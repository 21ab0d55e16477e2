"""The names of the archive's folders and files, made and parsed here alone.

    <root>/p00/partition.json
               .lock
               highwater                                            how far it has been
               .reserve                                             space for cleaning, no data
               2026-11-23/usages-p00-<first>-<last>.ndjson.zst      a finished segment
                          usages-p00-<first>.ndjson.zst.open        the one being written
                          gap-p00-<from>-<to>.json                  seqs that were skipped
                          quarantine-p00-<first>-<last>.bin         an entry nobody could read
                          usages-p00-<first>-<last>.ndjson.zst.damaged   set aside, never deleted
                          usages-p00-<first>-<last>.ndjson.zst.torn      set aside, its end in doubt

Seqs have 16 digits, as many as 2^53 has, so that names sort as seqs do.
"""

import os
import re
import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from busyapi.ids import Seq

IDENTITY = "partition.json"
LOCK = ".lock"
RESERVE = ".reserve"
HIGHWATER = "highwater"
UNKNOWN = Seq(0)
"""The last seq of an open segment, as far as its name goes."""
TEMPORARY = ".tmp"
"""Ends the name of a file that is not whole yet: recovery removes it, readers pass over it."""


class Kind(StrEnum):
    """What a file of the archive is."""

    SEGMENT = "segment"
    OPEN = "open"
    GAP = "gap"
    QUARANTINE = "quarantine"
    DAMAGED = "damaged"
    TORN = "torn"


class File(NamedTuple):
    """One file and the seqs its name claims. The last of an open segment is UNKNOWN."""

    first: Seq
    last: Seq
    kind: Kind
    path: str
    """From the partition's folder: day/name."""

    @property
    def day(self) -> str:
        """The UTC day on which it was opened, YYYY-MM-DD."""
        return self.path.partition("/")[0]

    @property
    def seqs(self) -> int:
        """How many seqs the name claims."""
        return self.last - self.first + 1


_PARTITION = re.compile(r"p(\d{2,})")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_FILE = re.compile(
    r"(usages|gap|quarantine)-p(\d{2,})-(\d{16})(?:-(\d{16}))?(\.[a-z.]+)"
    r"(?:(?:(?<=damaged)|(?<=torn))\d+)?"
)
_KINDS = {
    ("usages", ".ndjson.zst"): Kind.SEGMENT,
    ("usages", ".ndjson.zst.open"): Kind.OPEN,
    ("usages", ".ndjson.zst.damaged"): Kind.DAMAGED,
    ("usages", ".ndjson.zst.torn"): Kind.TORN,
    ("gap", ".json"): Kind.GAP,
    ("quarantine", ".bin"): Kind.QUARANTINE,
}
_ENDS = {kind: (stem, end) for (stem, end), kind in _KINDS.items()}


def partition_folder(root: Path, partition: int) -> Path:
    """Return the folder of one partition."""
    return root / f"p{partition:02d}"


def partition_folders(root: Path) -> dict[int, Path]:
    """List the folders of partitions below a root, by number."""
    matches = [(_PARTITION.fullmatch(each.name), each) for each in root.iterdir() if each.is_dir()]
    found = sorted((int(match[1]), path) for match, path in matches if match)
    # p001 is a person's copy of p01: it must not stand in for it.
    return {number: path for number, path in found if path == partition_folder(root, number)}


def day_of(seconds: float | None = None) -> str:
    """Return the UTC day of a time in seconds since 1970, of now by default."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def file(kind: Kind, day: str, partition: int, first: Seq, last: Seq = UNKNOWN) -> File:
    """Name a file."""
    stem, end = _ENDS[kind]
    to = "" if kind is Kind.OPEN else f"-{last:016d}"
    return File(first, last, kind, f"{day}/{stem}-p{partition:02d}-{first:016d}{to}{end}")


def parse(day: str, name: str, partition: int) -> File | None:
    """Read a file's name; None if it is not one of this partition's archive."""
    match = _FILE.fullmatch(name)
    if not match or int(match[2]) != partition:
        return None
    kind = _KINDS.get((match[1], match[5]))
    if kind is None or (kind is Kind.OPEN) != (match[4] is None):
        return None
    first, last = Seq(int(match[3])), Seq(int(match[4] or 0))
    return File(first, last, kind, f"{sys.intern(day)}/{name}")


class Listing(NamedTuple):
    """What lies in a partition's day folders."""

    files: list[File]
    """In the order of their seqs."""
    others: list[str]
    """day/name of what is no file of this archive: temporary files, and strange ones."""


def list_files(folder: Path, partition: int) -> Listing:
    """List a partition's files by their names alone."""
    files, others = [], []
    for day, name in _names(folder):
        if found := parse(day, name, partition):
            files.append(found)
        else:
            others.append(f"{day}/{name}")
    return Listing(sorted(files), others)


def _names(folder: Path) -> Iterator[tuple[str, str]]:
    with os.scandir(folder) as days:
        for day in days:
            if _DAY.fullmatch(day.name):
                with os.scandir(day.path) as found:
                    yield from ((day.name, each.name) for each in found)
