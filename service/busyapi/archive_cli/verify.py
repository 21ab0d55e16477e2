"""`archive verify`: every seq from the retention floor to the cursor is in one file and readable.

Files are read one by one, block by block, so memory does not grow with the archive. A flusher may
write at the same time: of an open segment, only complete blocks count, and only for seqs that no
finished segment holds (FORMAT.md: recovery may have died between the copy and the unlink).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from busyapi.archive import high_water, identity, markers, paths
from busyapi.archive.paths import TEMPORARY_SUFFIX, ArchiveFile, FileKind
from busyapi.archive.ranges import COVERING_KINDS, SeqRange, find_holes, find_overlaps, intersect
from busyapi.archive_cli.kept_memory import keep_freed_memory
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.segment_check import SegmentCheck
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveDamaged, UnknownVersion
from busyapi.ids import MAX_ID, Seq


class ArchiveProblem(NamedTuple):
    """One defect."""

    kind: str
    """"missing", "repeated", "damaged", or "unknown" (a later version wrote the file)."""
    where: str
    """The affected ids; "" if the problem is of a file and affects no id."""
    detail: str


@dataclass
class PartitionReport:
    """The result of the check of one partition."""

    number: int
    cursor: int = 0
    """The last seq that a file covers."""
    usages: int = 0
    """Valid lines."""
    gaps: int = 0
    """Gap records."""
    skipped: int = 0
    """Seqs in gap records, from the retention floor on."""
    quarantined: int = 0
    """Seqs in quarantine files."""
    problems: list[ArchiveProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Advance = Callable[[int], None]


def verify_archive(
    root: Path, advance: Advance = lambda _: None, *, only: int | None = None
) -> Iterator[PartitionReport]:
    """Check every partition that an archive should have, or one; yield a report for each.

    `advance` gets the number of bytes read since its last call.

    Raises:
        ArchiveNotFound: the folder holds no archive.
    """
    keep_freed_memory()
    for status in find_partitions(root, only):
        report = PartitionReport(status.number)
        if status.error:
            report.problems.append(ArchiveProblem(status.problem, "", status.error))
        try:
            if status.partition:
                _PartitionCheck(status.partition, report, advance).run()
        except (ArchiveDamaged, OSError) as error:
            report.problems.append(ArchiveProblem("damaged", "", str(error)))
        yield report


def estimate_bytes(root: Path) -> int:
    """Return about how many bytes `verify_archive` will read."""
    total = 0
    for path in root.glob("p*/*/usages-*"):
        with suppress(OSError):  # finished or deleted since, or damage, which the check reports
            total += path.stat().st_size
    return total


class _PartitionCheck:
    """Checks one partition once."""

    def __init__(
        self, partition: ArchivePartition, report: PartitionReport, advance: Advance
    ) -> None:
        self._partition = partition
        self._report = report
        self._advance = advance
        self._torn: dict[Seq, str] = {}
        """Paths of open segments that end with incomplete bytes, by the seq after their blocks."""
        self._reached = high_water.NO_MARK

    def run(self) -> None:
        # Read the mark first: what it covers was on disk before the files are listed.
        self._reached = reached = high_water.read_mark(
            self._partition.folder, self._partition.identity.archive_id
        )
        files, others, indexes = self._partition.list_files()
        floor = self._partition.identity.kept_from
        covering: list[ArchiveFile] = []
        for file in files:
            if file.kind in COVERING_KINDS and file.last >= floor:
                covering += self._read(file, [SeqRange(file.first, file.last)])
        segments = sorted(file for file in covering if file.kind is FileKind.SEGMENT)
        holes = list(find_holes(segments, floor, Seq(MAX_ID)))
        for file in files:
            if file.kind is FileKind.OPEN:
                covering += self._read(file, holes, segments)
        # Read the floor again: what retention has deleted in the meantime is not missing.
        kept_from = self._read_kept_from()
        cursor = max([Seq(kept_from - 1), *(file.last for file in covering)])
        lasts = (file.last for file in files if file.kind is not FileKind.DOUBTFUL)
        highest = max([cursor, reached, *lasts])
        self._report.cursor = cursor
        self._compare(covering, SeqRange(kept_from, highest))
        used = {paths.index_path(file) for file in files}
        self._add_notes(files, [*others, *(path for path in indexes if path not in used)])

    def _read_kept_from(self) -> Seq:
        stored = identity.read_identity(self._partition.folder)
        return stored.kept_from if stored else Seq(1)

    def _read(
        self,
        file: ArchiveFile,
        required_ranges: list[SeqRange],
        segments: Sequence[ArchiveFile] = (),
    ) -> list[ArchiveFile]:
        """Check one file; return it with the seqs that it covers."""
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
                return self._read_segment(file, required_ranges, segments)
        except UnknownVersion as error:
            return self._report_unknown(file, required_ranges, str(error))
        except (ArchiveDamaged, OSError) as error:
            del self._report.problems[before:]
            if file.kind is not FileKind.OPEN and file.last < self._read_kept_from():
                return []
            self._report_damage(file, file.first, file.last, str(error))
        return [file]

    def _report_unknown(
        self, file: ArchiveFile, required_ranges: list[SeqRange], detail: str
    ) -> list[ArchiveFile]:
        """Report a file of a later version; its name may be right, so its seqs count as covered."""
        if file.kind is FileKind.OPEN:
            file = file._replace(last=self._reached, kind=FileKind.SEGMENT)
        span = SeqRange(file.first, file.last)
        self._add_problem("unknown", span, detail)
        return [
            file._replace(first=first, last=last)
            for first, last in intersect(span, required_ranges)
        ]

    def _read_segment(
        self, file: ArchiveFile, required_ranges: list[SeqRange], segments: Sequence[ArchiveFile]
    ) -> list[ArchiveFile]:
        with self._partition.open_file(file) as opened:
            if opened is None or opened[1] in segments:
                return []
            fd, current = opened
            check = SegmentCheck(
                self._partition,
                fd,
                current,
                required_ranges,
                lambda *defect: self._report_damage(current, *defect),
            )
            check.run(self._advance)
        self._report.usages += check.usages
        if check.lacks_index:
            self._report.notes.append(
                f"{current.path} has no index: `busyapi archive upgrade` makes it"
            )
        if current.kind is not FileKind.OPEN:
            return [current]
        return self._list_covered(current, check, required_ranges)

    def _list_covered(
        self, file: ArchiveFile, check: SegmentCheck, required_ranges: list[SeqRange]
    ) -> list[ArchiveFile]:
        """Return an open segment once for each range of seqs that it alone holds."""
        tail = (
            f", followed by {check.incomplete_bytes} incomplete bytes"
            if check.incomplete_bytes
            else ""
        )
        span = SeqRange(file.first, Seq(check.next_seq - 1))
        spans = list(intersect(span, required_ranges))
        if tail and (spans or span.last < span.first):
            self._torn[check.next_seq] = file.path
        copied = (
            "" if spans or span.last < span.first else "; finished segments already hold these ids"
        )
        self._report.notes.append(
            f"{file.path} is open: it holds {self._partition.describe_ids(span)}{tail}{copied}"
        )
        return [
            file._replace(first=first, last=last, kind=FileKind.SEGMENT) for first, last in spans
        ]

    def _compare(self, covering: list[ArchiveFile], span: SeqRange) -> None:
        covering.sort()
        for one, other in find_overlaps(covering):
            last = min(one.last, other.last)
            detail = f"in {one.path} and in {other.path}"
            self._add_problem("repeated", SeqRange(other.first, last), detail)
        for hole in find_holes(covering, *span):
            self._report_hole(hole)

    def _report_hole(self, hole: SeqRange) -> None:
        """Report seqs in no file; those after a torn open segment were in its last bytes."""
        torn = min(
            (seq for seq in self._torn if seq in range(hole.first, hole.last + 1)), default=0
        )
        if torn != hole.first:
            last = Seq(torn - 1) if torn else hole.last
            self._add_problem("missing", SeqRange(hole.first, last), "in no file")
        if torn:
            detail = f"{self._torn[Seq(torn)]}: its last bytes, which held them, are damaged"
            self._add_problem("damaged", SeqRange(Seq(torn), hole.last), detail)

    def _add_notes(self, files: list[ArchiveFile], others: list[str]) -> None:
        notes = self._report.notes
        floor = self._read_kept_from()
        notes += [
            f"{file.path} is below the retention floor, seq {floor}: the flusher will delete it"
            for file in files
            if file.kind in {FileKind.SEGMENT, FileKind.QUARANTINE} and file.last < floor
        ]
        notes += [f"{file.path} was set aside" for file in files if file.kind is FileKind.DAMAGED]
        notes += [
            f"{file.path} was set aside: its end is doubtful, perhaps {self._describe(file)}"
            for file in files
            if file.kind is FileKind.DOUBTFUL
        ]
        notes += [
            f"{name} is not a file of this archive"
            for name in others
            if not name.endswith(TEMPORARY_SUFFIX)
        ]

    def _describe(self, file: ArchiveFile) -> str:
        return self._partition.describe_ids(SeqRange(file.first, file.last))

    def _report_damage(self, file: ArchiveFile, first: Seq, last: Seq, detail: str) -> None:
        self._add_problem("damaged", SeqRange(first, last), f"{file.path}: {detail}")

    def _add_problem(self, kind: str, span: SeqRange, detail: str) -> None:
        where = self._partition.describe_ids(span) if span.last >= span.first else ""
        self._report.problems.append(ArchiveProblem(kind, where, detail))
