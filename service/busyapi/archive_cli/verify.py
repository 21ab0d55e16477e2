"""The proof: every seq from the retention floor to the cursor is in one place, and is readable.

Files are read one after the other, block by block, so memory does not grow with the archive. A
writer may go on meanwhile: an open segment counts as far as its blocks are whole, and where no
finished one holds the same seqs (FORMAT.md: recovery may have died between the two).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from busyapi.archive import high_water, identity, markers
from busyapi.archive.paths import TEMPORARY_SUFFIX, ArchiveFile, FileKind
from busyapi.archive.ranges import COVERING_KINDS, SeqRange, find_holes, find_overlaps, intersect
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.segment_check import SegmentCheck
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveDamaged, UnknownVersion
from busyapi.ids import MAX_ID, Seq


class ArchiveProblem(NamedTuple):
    """One defect."""

    kind: str
    """missing, repeated, damaged, or unknown: a later version wrote it."""
    where: str
    """The ids in question, "" where it is a file and no id is in doubt."""
    what: str


@dataclass
class PartitionReport:
    """What is known of one partition."""

    number: int
    cursor: int = 0
    """The last seq that a file answers for."""
    usages: int = 0
    """Lines that are as they should be."""
    gaps: int = 0
    """Gap records."""
    skipped: int = 0
    """Seqs in them, from the retention floor on."""
    quarantined: int = 0
    """Seqs in quarantine files."""
    problems: list[ArchiveProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Advance = Callable[[int], None]


def verify_archive(
    root: Path, advance: Advance = lambda _: None, *, only: int | None = None
) -> Iterator[PartitionReport]:
    """Check every partition that an archive should have, or one; give one report each.

    `advance` gets the number of bytes read, again and again.

    Raises:
        ArchiveNotFound: there is none.
    """
    for place in find_partitions(root, only):
        report = PartitionReport(place.number)
        if place.error:
            report.problems.append(ArchiveProblem(place.problem, "", place.error))
        try:
            if place.partition:
                _PartitionCheck(place.partition, report, advance).run()
        except (ArchiveDamaged, OSError) as error:
            report.problems.append(ArchiveProblem("damaged", "", str(error)))
        yield report


def estimate_bytes(root: Path) -> int:
    """Return about how many bytes `verify_archive` will read."""
    return sum(each.stat().st_size for each in root.glob("p*/*/usages-*"))


class _PartitionCheck:
    """One check of one partition."""

    def __init__(
        self, partition: ArchivePartition, report: PartitionReport, advance: Advance
    ) -> None:
        self._partition = partition
        self._report = report
        self._advance = advance
        self._torn: dict[Seq, str] = {}
        """The open segments whose last bytes are no whole block, by the seq that follows it."""
        self._reached = high_water.NO_MARK

    def run(self) -> None:
        # First: what it covers was on disk before the files are listed.
        self._reached = reached = high_water.read_mark(
            self._partition.folder, self._partition.identity.archive_id
        )
        files, others = self._partition.list_files()
        floor = self._partition.identity.kept_from
        covering: list[ArchiveFile] = []
        for each in files:
            if each.kind in COVERING_KINDS and each.last >= floor:
                covering += self._read(each, [SeqRange(each.first, each.last)])
        finished = sorted(each for each in covering if each.kind is FileKind.SEGMENT)
        left = list(find_holes(finished, floor, Seq(MAX_ID)))
        for each in files:
            if each.kind is FileKind.OPEN:
                covering += self._read(each, left, finished)
        # Asked again after them: what retention has deleted meanwhile is not missing.
        kept_from = self._kept_from()
        cursor = max([Seq(kept_from - 1), *(each.last for each in covering)])
        lasts = (each.last for each in files if each.kind is not FileKind.TORN)
        highest = max([cursor, reached, *lasts])
        self._report.cursor = cursor
        self._compare(covering, SeqRange(kept_from, highest))
        self._note(files, others)

    def _kept_from(self) -> Seq:
        said = identity.read_identity(self._partition.folder)
        return said.kept_from if said else Seq(1)

    def _read(
        self, file: ArchiveFile, counts: list[SeqRange], finished: Sequence[ArchiveFile] = ()
    ) -> list[ArchiveFile]:
        """Check one file; return it with the seqs it answers for."""
        before = len(self._report.problems)
        try:
            if file.kind is FileKind.GAP:
                markers.read_gap(self._partition.folder, file, self._partition.identity)
                self._report.gaps += 1
                self._report.skipped += file.seq_count
            elif file.kind is FileKind.QUARANTINE:
                markers.read_quarantine(self._partition.folder, file, self._partition.identity)
                self._report.quarantined += file.seq_count
            else:
                return self._read_segment(file, counts, finished)
        except UnknownVersion as error:
            return self._unknown(file, counts, str(error))
        except (ArchiveDamaged, OSError) as error:
            del self._report.problems[before:]
            if file.kind is not FileKind.OPEN and file.last < self._kept_from():
                return []
            self._damaged(file, file.first, file.last, str(error))
        return [file]

    def _unknown(self, file: ArchiveFile, counts: list[SeqRange], what: str) -> list[ArchiveFile]:
        """Tell of a file of a later version; what its name says may be true, so it answers."""
        if file.kind is FileKind.OPEN:
            file = file._replace(last=self._reached, kind=FileKind.SEGMENT)
        span = SeqRange(file.first, file.last)
        self._problem("unknown", span, what)
        return [file._replace(first=a, last=b) for a, b in intersect(span, counts)]

    def _read_segment(
        self, file: ArchiveFile, counts: list[SeqRange], finished: Sequence[ArchiveFile]
    ) -> list[ArchiveFile]:
        with self._partition.open_file(file) as opened:
            if opened is None or opened[1] in finished:
                return []
            fd, found = opened
            check = SegmentCheck(
                self._partition, fd, found, counts, lambda *what: self._damaged(found, *what)
            )
            check.run(self._advance)
        self._report.usages += check.usages
        if found.kind is not FileKind.OPEN:
            return [found]
        return self._answers_for(found, check, counts)

    def _answers_for(
        self, found: ArchiveFile, check: SegmentCheck, counts: list[SeqRange]
    ) -> list[ArchiveFile]:
        """Return an open segment once for each range of seqs that it alone holds."""
        torn = f", {check.torn_bytes} bytes behind them are not" if check.torn_bytes else ""
        span = SeqRange(found.first, Seq(check.next_seq - 1))
        spans = list(intersect(span, counts))
        if torn and (spans or span.last < span.first):
            self._torn[check.next_seq] = found.path
        copied = "" if spans or span.last < span.first else "; finished files hold them all"
        self._report.notes.append(
            f"{found.path} is open: {self._partition.describe_ids(span)} whole{torn}{copied}"
        )
        return [found._replace(first=a, last=b, kind=FileKind.SEGMENT) for a, b in spans]

    def _compare(self, covering: list[ArchiveFile], span: SeqRange) -> None:
        covering.sort()
        for one, other in find_overlaps(covering):
            last = min(one.last, other.last)
            both = f"in {one.path} and in {other.path}"
            self._problem("repeated", SeqRange(other.first, last), both)
        for hole in find_holes(covering, *span):
            self._report_hole(hole)

    def _report_hole(self, hole: SeqRange) -> None:
        """Tell of seqs in no file; those behind a torn open segment were in its last bytes."""
        torn = min(
            (seq for seq in self._torn if seq in range(hole.first, hole.last + 1)), default=0
        )
        if torn != hole.first:
            last = Seq(torn - 1) if torn else hole.last
            self._problem("missing", SeqRange(hole.first, last), "in no file")
        if torn:
            what = f"{self._torn[Seq(torn)]}: its last bytes, where they were, do not hold"
            self._problem("damaged", SeqRange(Seq(torn), hole.last), what)

    def _note(self, files: list[ArchiveFile], others: list[str]) -> None:
        notes = self._report.notes
        floor = self._kept_from()
        notes += [
            f"{each.path} is below the retention floor, seq {floor}: it is to be deleted"
            for each in files
            if each.kind in {FileKind.SEGMENT, FileKind.QUARANTINE} and each.last < floor
        ]
        notes += [f"{each.path} was set aside" for each in files if each.kind is FileKind.DAMAGED]
        notes += [
            f"{each.path} was set aside: its last bytes were torn, perhaps {self._ids_of(each)}"
            for each in files
            if each.kind is FileKind.TORN
        ]
        notes += [
            f"{each} is no file of this archive"
            for each in others
            if not each.endswith(TEMPORARY_SUFFIX)
        ]

    def _ids_of(self, file: ArchiveFile) -> str:
        return self._partition.describe_ids(SeqRange(file.first, file.last))

    def _damaged(self, file: ArchiveFile, first: Seq, last: Seq, what: str) -> None:
        self._problem("damaged", SeqRange(first, last), f"{file.path}: {what}")

    def _problem(self, kind: str, span: SeqRange, what: str) -> None:
        where = self._partition.describe_ids(span) if span.last >= span.first else ""
        self._report.problems.append(ArchiveProblem(kind, where, what))
