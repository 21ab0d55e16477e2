"""The proof: every seq from the retention floor to the cursor is in one place, and is readable.

Files are read one after the other, block by block, so memory does not grow with the archive. A
writer may go on meanwhile: an open segment counts as far as its blocks are whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from busyapi.archive import identity, names, records
from busyapi.archive.browse import NoArchive, Partition
from busyapi.archive.check import SegmentCheck
from busyapi.archive.coverage import COVERING, Range, holes, overlaps
from busyapi.archive.names import TEMPORARY, File, Kind
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq


class Problem(NamedTuple):
    """One defect."""

    kind: str
    """missing, repeated or damaged."""
    where: str
    """The ids in question, "" where it is a file and no id is in doubt."""
    what: str


@dataclass
class Report:
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
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Advance = Callable[[int], None]


def verify(root: Path, advance: Advance = lambda _: None) -> Iterator[Report]:
    """Check every partition below a root, one report each; `advance` is told the bytes read.

    Raises:
        NoArchive: there is none.
    """
    if not root.is_dir():
        raise NoArchive(f"{root} is no folder")
    found = False
    for number, folder in names.partition_folders(root).items():
        report = Report(number)
        try:
            partition = _partition(folder, number)
            if partition is None:
                continue
            _Check(partition, report, advance).run()
        except ArchiveDamaged as error:
            report.problems.append(Problem("damaged", "", str(error)))
        found = True
        yield report
    if not found:
        raise NoArchive(f"{root} holds no archive: no folder p00 with a {names.IDENTITY}")


def _partition(folder: Path, number: int) -> Partition | None:
    """Return the partition in a folder; None if nothing was ever written there."""
    said = identity.read(folder)
    if said is None and not names.list_files(folder, number).files:
        return None
    if said is None or said.partition != number:
        raise ArchiveDamaged(f"{folder / names.IDENTITY} is missing, or another partition's")
    return Partition(folder, said)


def bytes_to_read(root: Path) -> int:
    """Return about how many bytes `verify` will read."""
    return sum(each.stat().st_size for each in root.glob("p*/*/usages-*"))


class _Check:
    """One check of one partition."""

    def __init__(self, partition: Partition, report: Report, advance: Advance) -> None:
        self._partition = partition
        self._report = report
        self._advance = advance

    def run(self) -> None:
        files, others = self._partition.listing()
        floor = self._partition.identity.kept_from
        covering: list[File] = []
        for each in files:
            if each.kind is Kind.OPEN or (each.kind in COVERING and each.last >= floor):
                covering += self._read(each)
        # Asked again after them: what retention has deleted meanwhile is not missing.
        kept_from = self._kept_from()
        cursor = max([Seq(kept_from - 1), *(each.last for each in covering)])
        highest = max([cursor, *(each.last for each in files)])
        self._report.cursor = cursor
        self._compare(covering, Range(kept_from, highest))
        self._note(files, others)

    def _kept_from(self) -> Seq:
        said = identity.read(self._partition.folder)
        return said.kept_from if said else Seq(1)

    def _read(self, file: File) -> list[File]:
        """Check one file; return it with the seqs it answers for."""
        before = len(self._report.problems)
        try:
            if file.kind is Kind.GAP:
                records.read_gap(self._partition.folder, file, self._partition.identity)
                self._report.gaps += 1
                self._report.skipped += file.seqs
            elif file.kind is Kind.QUARANTINE:
                records.read_quarantine(self._partition.folder, file, self._partition.identity)
                self._report.quarantined += file.seqs
            else:
                return self._read_segment(file)
        except (ArchiveDamaged, OSError) as error:
            del self._report.problems[before:]
            if file.kind is not Kind.OPEN and file.last < self._kept_from():
                return []
            self._damaged(file, file.first, file.last, str(error))
        return [file]

    def _read_segment(self, file: File) -> list[File]:
        with self._partition.opened(file) as opened:
            if opened is None:
                return []
            fd, found = opened
            check = SegmentCheck(
                self._partition, fd, found, lambda *what: self._damaged(found, *what)
            )
            check.run(self._advance)
        self._report.usages += check.usages
        if found.kind is not Kind.OPEN:
            return [found]
        torn = f", {check.torn_bytes} bytes behind them are not" if check.torn_bytes else ""
        last = Seq(check.next - 1)
        self._report.notes.append(
            f"{found.path} is open: {self._partition.ids(Range(found.first, last))} whole{torn}"
        )
        return [found._replace(last=last, kind=Kind.SEGMENT)] if last >= found.first else []

    def _compare(self, covering: list[File], span: Range) -> None:
        covering.sort()
        for one, other in overlaps(covering):
            last = min(one.last, other.last)
            both = f"in {one.path} and in {other.path}"
            self._problem("repeated", Range(other.first, last), both)
        for hole in holes(covering, *span):
            self._problem("missing", hole, "in no file")

    def _note(self, files: list[File], others: list[str]) -> None:
        notes = self._report.notes
        notes += [f"{each.path} was set aside" for each in files if each.kind is Kind.DAMAGED]
        notes += [
            f"{each} is no file of this archive" for each in others if not each.endswith(TEMPORARY)
        ]

    def _damaged(self, file: File, first: Seq, last: Seq, what: str) -> None:
        self._problem("damaged", Range(first, last), f"{file.path}: {what}")

    def _problem(self, kind: str, span: Range, what: str) -> None:
        where = self._partition.ids(span) if span.last >= span.first else ""
        self._report.problems.append(Problem(kind, where, what))
