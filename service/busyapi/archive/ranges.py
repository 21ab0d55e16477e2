"""The seqs that the files of a partition cover: interval arithmetic on their names."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.ids import MAX_ID, Seq


class SeqRange(NamedTuple):
    """The seqs from first to last, both included."""

    first: Seq
    last: Seq


COVERING_KINDS = {FileKind.SEGMENT, FileKind.GAP, FileKind.QUARANTINE}
"""The kinds of files that cover all seqs in their name."""


def find_holes(files: Iterable[ArchiveFile], first: Seq, last: Seq) -> Iterator[SeqRange]:
    """Yield the ranges from first to last that no file covers. Files must be in order."""
    next_seq = first
    for file in files:
        if next_seq > last:
            return
        if file.kind not in COVERING_KINDS or file.last < next_seq:
            continue
        if file.first > next_seq:
            yield SeqRange(next_seq, Seq(min(file.first - 1, last)))
        next_seq = Seq(file.last + 1)
    if next_seq <= last:
        yield SeqRange(next_seq, last)


def intersect(span: SeqRange, ranges: Iterable[SeqRange]) -> Iterator[SeqRange]:
    """Yield the parts of `span` that are in any of `ranges`."""
    for other in ranges:
        first, last = max(span.first, other.first), min(span.last, other.last)
        if first <= last:
            yield SeqRange(first, last)


def find_cursor(files: Iterable[ArchiveFile], kept_from: Seq) -> Seq:
    """Return the last seq before the first hole."""
    return Seq(next(find_holes(files, kept_from, Seq(MAX_ID))).first - 1)


def find_overlaps(files: Iterable[ArchiveFile]) -> Iterator[tuple[ArchiveFile, ArchiveFile]]:
    """Yield pairs of files that cover the same seq, the earlier file first."""
    furthest: ArchiveFile | None = None
    for file in files:
        if file.kind not in COVERING_KINDS:
            continue
        if furthest and file.first <= furthest.last:
            yield furthest, file
        if furthest is None or file.last > furthest.last:
            furthest = file
