"""`audit verify`: every record of a trail follows the one before it, and the head is the last one.

The files are walked in order. Each file's first record names the file before it and how many of
its bytes count. What retention deleted is recorded in the chain; anything else that is missing,
changed, exchanged or cut off is a problem.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from busyapi.audit.files import AuditFile, list_files
from busyapi.audit.head import Head, read_head
from busyapi.audit.record import FORMAT_VERSION, GENESIS_HASH, HEAD_MISSING, SealedRecord
from busyapi.audit.scan import previous_hash, read_begin, scan_lines


class TrailProblem(NamedTuple):
    """One defect."""

    kind: str
    """"changed", "missing", "exchanged", "cut off", "unknown" (a later version)."""
    where: str
    detail: str


@dataclass
class TrailReport:
    """The result of the check of one trail."""

    partition: int
    records: int = 0
    first: int = 0
    last: int = 0
    head: str = ""
    """The hash of the last record."""
    problems: list[TrailProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unseen: set[str] = field(default_factory=set)
    """Expected hashes that no record has."""


def verify_trail(folder: Path, partition: int, expected: Collection[str] = ()) -> TrailReport:
    """Check a trail, and search records with the hashes in `expected`."""
    return _TrailCheck(folder, partition, expected).run()


class _Link(NamedTuple):
    """The first record of a file, and where it says that the trail continues."""

    file: AuditFile
    begin: SealedRecord

    @property
    def after(self) -> tuple[str, int] | None:
        after = self.begin.members.get("after")
        return (str(after["file"]), int(after["bytes"])) if isinstance(after, dict) else None


class _TrailCheck:
    """Checks one trail once."""

    def __init__(self, folder: Path, partition: int, expected: Collection[str]) -> None:
        self._folder = folder
        self._report = TrailReport(partition)
        self._expected = set(expected)
        self._head: Head | None = None
        self._head_matches = False
        self._anchor: Head | None = None
        """The record before the oldest file, unless this file begins the trail."""
        self._expired: dict[Head, str] = {}
        """The last records that retention removed, and when."""
        self._boundaries: set[Head] = set()
        """The last record before each file."""
        self._last = Head(0, GENESIS_HASH)
        self._trail = ""

    def run(self) -> TrailReport:
        # Before the files: a writer may append meanwhile, and the head never precedes them.
        self._head = read_head(self._folder)
        links = self._read_links(list_files(self._folder, self._report.partition))
        for at, link in enumerate(links):
            self._check_link(links[at - 1] if at else None, link)
            follower = links[at + 1].after if at + 1 < len(links) else None
            stop = follower[1] if follower and follower[0] == link.file.name else None
            self._check_file(link, stop)
        self._check_anchor()
        self._check_head(has_files=bool(links))
        self._check_expired()
        self._report.unseen = self._expected
        self._report.last, self._report.head = self._last
        return self._report

    def _read_links(self, files: Sequence[AuditFile]) -> list[_Link]:
        """Return the files that belong to the chain; report the others."""
        links: list[_Link] = []
        named: set[str] = set()
        for file in reversed(files):
            begin = read_begin(file.path)
            # A later file continues an earlier one than this: nothing in this one was confirmed.
            is_skipped = any(name < file.name for name in named)
            if begin is not None and not is_skipped:
                links.insert(0, link := _Link(file, begin))
                named |= {link.after[0]} if link.after else set()
            elif begin is None and file.name in named:
                self._add("changed", file.name, "its first record is damaged")
            else:
                self._add_unlinked(file, begin)
        return links

    def _add_unlinked(self, file: AuditFile, begin: SealedRecord | None) -> None:
        if begin is None and not any(line.is_complete for line in scan_lines(file.path)):
            self._report.notes.append(f"{file.name} holds no complete record")
        elif begin is not None and begin.members.get("file") != file.name:
            self._add("exchanged", file.name, f"it was {begin.members.get('file')}")
        else:
            self._add("changed", file.name, "no other file continues it")

    def _check_link(self, before: _Link | None, link: _Link) -> None:
        """Check that a file continues the one before it."""
        begin, name = link.begin, link.file.name
        if begin.members.get("version") != FORMAT_VERSION:
            self._add("unknown", name, "a later version of busyapi wrote it")
        if begin.members.get("file") != name:
            self._add("exchanged", name, f"its first record says {begin.members.get('file')}")
        if begin.members.get("partition") != self._report.partition:
            self._add("exchanged", name, "it is of another partition")
        trail = str(begin.members.get("trail"))
        if self._trail not in {"", trail}:
            self._add("exchanged", name, "it is of another trail")
        self._trail = trail
        self._boundaries.add(Head(begin.seq - 1, previous_hash(begin)))
        if before is None:
            self._report.first = begin.seq
            if begin.seq != 1 or link.after:
                self._anchor = Head(begin.seq - 1, previous_hash(begin))
        elif link.after is None:
            self._add("missing", name, "it begins a new trail after other files")
        elif link.after[0] != before.file.name:
            self._add("missing", link.after[0], f"{name} continues this file, which is missing")
            self._last = Head(begin.seq - 1, previous_hash(begin))
        self._report_loss(link)

    def _report_loss(self, link: _Link) -> None:
        """Report what the writer missed when it began a file."""
        begin, name = link.begin, link.file.name
        when = begin.members.get("time")
        if begin.members.get("why") == HEAD_MISSING:
            why = f"the head was gone when the writer looked at {when}"
            self._add("missing", name, f"{why}: records before this file may have been cut off")
        missing = begin.members.get("missing")
        if isinstance(missing, dict):
            span = f"records {missing.get('from')} to {missing.get('through')}"
            self._add("missing", name, f"{span} were gone when the writer looked at {when}")

    def _check_file(self, link: _Link, stop: int | None) -> None:
        """Check the records of a file up to an offset."""
        if self._report.first == link.begin.seq:
            self._last = Head(link.begin.seq - 1, previous_hash(link.begin))
        name, end, rest = link.file.name, 0, 0
        for line in scan_lines(link.file.path, stop):
            end = line.end
            if line.record is not None:
                self._check_record(name, line.record)
            elif line.is_complete:
                self._add("changed", name, f"the line at byte {line.start} is not a record")
            else:
                rest = line.end - line.start
        size = link.file.path.stat().st_size
        if stop is not None and end < stop:
            self._add("cut off", name, f"it has {size} bytes, and {stop} are recorded")
        elif stop is not None and size > stop:
            self._report.notes.append(
                f"{name}: its last {size - stop} bytes were never confirmed, and do not count"
            )
        elif rest:
            self._report.notes.append(f"{name} ends with {rest} bytes of an incomplete record")

    def _check_record(self, name: str, record: SealedRecord) -> None:
        last = self._last
        is_missing_recorded = isinstance(record.members.get("missing"), dict)
        if record.seq > last.seq + 1 and not is_missing_recorded:
            self._add("missing", name, f"records {last.seq + 1} to {record.seq - 1}")
        elif record.seq <= last.seq:
            self._add("exchanged", name, f"record {record.seq} follows record {last.seq}")
        elif not record.follows(last.hash):
            self._add("changed", name, f"record {record.seq} does not match its hash")
        self._last = Head(record.seq, record.hash)
        self._report.records += 1
        self._expected.discard(record.hash)
        if self._head == self._last:
            self._head_matches = True
        if record.action == "expire":
            through = record.members.get("through"), record.members.get("through_hash")
            last_removed = Head(int(through[0] or 0), str(through[1]))
            self._expired[last_removed] = str(record.members.get("time"))

    def _check_anchor(self) -> None:
        if self._anchor and self._anchor not in self._expired:
            detail = f"records 1 to {self._anchor.seq} are gone, and no retention is recorded"
            self._add("missing", "", detail)
        elif self._anchor and self._anchor.hash in self._expected:
            # Its content is gone: nothing proves it but the record of its removal.
            self._expected.discard(self._anchor.hash)
            self._report.notes.append(
                f"the expected hash {self._anchor.hash} is in records 1 to {self._anchor.seq},"
                f" which retention of {self._expired[self._anchor]} removed"
            )

    def _check_expired(self) -> None:
        """Check that what an `expire` says was removed is not there."""
        for last, time in self._expired.items():
            # Before the files are deleted, or if the process dies then, the last one is there.
            if last.seq >= self._report.first and last not in self._boundaries:
                self._add(
                    "changed",
                    "",
                    f"an expire of {time} says that records up to {last.seq} were removed, and"
                    f" records from {self._report.first} are there",
                )

    def _check_head(self, *, has_files: bool) -> None:
        if self._head is None:
            if has_files:
                self._add("missing", "", "the head")
        elif self._head.seq > self._last.seq:
            span = f"records {self._last.seq + 1} to {self._head.seq}"
            self._add("cut off", "", f"{span}: the head names the last of them")
        elif self._head.seq and not self._head_matches:
            self._add("changed", "", f"record {self._head.seq} is not the one of the head")

    def _add(self, kind: str, where: str, detail: str) -> None:
        self._report.problems.append(TrailProblem(kind, where, detail))
