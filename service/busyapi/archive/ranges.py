"""Which seqs the files of a partition cover: interval arithmetic on their names alone."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.ids import MAX_ID, Seq


class SeqRange(NamedTuple):
    """Seqs from first to last, both included."""

    first: Seq
    last: Seq


COVERING_KINDS = {FileKind.SEGMENT, FileKind.GAP, FileKind.QUARANTINE}
"""The kinds whose name says for good which seqs they answer for."""


def find_holes(files: Iterable[ArchiveFile], first: Seq, last: Seq) -> Iterator[SeqRange]:
    """Give the ranges within first to last that no file covers. Files are in order."""
    at = first
    for each in files:
        if at > last:
            return
        if each.kind not in COVERING_KINDS or each.last < at:
            continue
        if each.first > at:
            yield SeqRange(at, Seq(min(each.first - 1, last)))
        at = Seq(each.last + 1)
    if at <= last:
        yield SeqRange(at, last)


def intersect(span: SeqRange, ranges: Iterable[SeqRange]) -> Iterator[SeqRange]:
    """Give the parts of a range that lie in any of these ranges."""
    for each in ranges:
        first, last = max(span.first, each.first), min(span.last, each.last)
        if first <= last:
            yield SeqRange(first, last)


def find_cursor(files: Iterable[ArchiveFile], kept_from: Seq) -> Seq:
    """Return the last seq before the first hole."""
    return Seq(next(find_holes(files, kept_from, Seq(MAX_ID))).first - 1)


def find_overlaps(files: Iterable[ArchiveFile]) -> Iterator[tuple[ArchiveFile, ArchiveFile]]:
    """Give each file that covers a seq which one before it covers, after that one."""
    furthest: ArchiveFile | None = None
    for each in files:
        if each.kind not in COVERING_KINDS:
            continue
        if furthest and each.first <= furthest.last:
            yield furthest, each
        if furthest is None or each.last > furthest.last:
            furthest = each
