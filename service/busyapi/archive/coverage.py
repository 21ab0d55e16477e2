"""Which seqs the files of a partition cover: interval arithmetic on their names alone."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from busyapi.archive.names import File, Kind
from busyapi.ids import MAX_ID, Seq


class Range(NamedTuple):
    """Seqs from first to last, both included."""

    first: Seq
    last: Seq


COVERING = {Kind.SEGMENT, Kind.GAP, Kind.QUARANTINE}
"""The kinds whose name says for good which seqs they answer for."""


def holes(files: Iterable[File], first: Seq, last: Seq) -> Iterator[Range]:
    """Give the ranges within first to last that no file covers. Files are in order."""
    at = first
    for each in files:
        if at > last:
            return
        if each.kind not in COVERING or each.last < at:
            continue
        if each.first > at:
            yield Range(at, Seq(min(each.first - 1, last)))
        at = Seq(each.last + 1)
    if at <= last:
        yield Range(at, last)


def within(span: Range, ranges: Iterable[Range]) -> Iterator[Range]:
    """Give the parts of a range that lie in any of these ranges."""
    for each in ranges:
        first, last = max(span.first, each.first), min(span.last, each.last)
        if first <= last:
            yield Range(first, last)


def cursor(files: Iterable[File], kept_from: Seq) -> Seq:
    """Return the last seq before the first hole."""
    return Seq(next(holes(files, kept_from, Seq(MAX_ID))).first - 1)


def overlaps(files: Iterable[File]) -> Iterator[tuple[File, File]]:
    """Give each file that covers a seq which one before it covers, after that one."""
    furthest: File | None = None
    for each in files:
        if each.kind not in COVERING:
            continue
        if furthest and each.first <= furthest.last:
            yield furthest, each
        if furthest is None or each.last > furthest.last:
            furthest = each
