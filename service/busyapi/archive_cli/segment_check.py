"""The check of one segment: it reads every byte and every line, and trusts no index or footer.

A missing index of format 2 is not a defect, because it can be rebuilt; a wrong one is.

Each defect is reported with the seqs that it affects. Memory holds one block and the index.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from busyapi.archive import paths
from busyapi.archive.archived_usage import parse_line, read_heads
from busyapi.archive.compression import read_content_size
from busyapi.archive.format import BlockHeader, SegmentIndex, SegmentSummary
from busyapi.archive.frames import LineSummary, summarize_lines, summarize_times
from busyapi.archive.index_file import has_valid_sections
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.ranges import SeqRange, intersect
from busyapi.archive.reader import (
    Block,
    matches_file,
    read_footer,
    read_format,
    read_summary,
    scan_blocks,
    verify_sha256,
)
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq
from busyapi.strides import IdScheme
from busyapi.usage_json import format_received_at

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

MIN_BYTES_AT_ONCE = 1 << 15
"""Of a smaller block, to check each line is faster."""

DamageReporter = Callable[[Seq, Seq, str], None]
"""Called for each defect: first seq, last seq (below the first if no seq is affected), detail."""


class SegmentCheck:
    """One check of one segment."""

    def __init__(
        self,
        partition: ArchivePartition,
        fd: int,
        file: ArchiveFile,
        required_ranges: Sequence[SeqRange],
        damage: DamageReporter,
    ) -> None:
        """Prepare. `required_ranges` are the seqs that only this segment may hold."""
        self.usages = 0
        """Lines that are valid."""
        self.next_seq = file.first
        """The seq after the last complete block."""
        self.incomplete_bytes = 0
        """Bytes after the last complete block of an open segment: a torn block, or a block that is
        being written."""
        self.lacks_index = False
        """A finished segment of format 2 has no index."""
        self._partition, self._fd, self._file = partition, fd, file
        self._required_ranges = required_ranges
        self._report = damage
        self._index = SegmentIndex()
        self._end = 0
        self._raw_bytes = 0
        self._times: set[bytes] | None = None
        """Times of the last frame, if `check_lines` has found its lines valid."""

    def run(self, advance: Callable[[int], None]) -> None:
        """Check the whole segment; `advance` gets the number of bytes read."""
        for block in scan_blocks(self._fd, self._partition.identity.ids, summarize=self._summarize):
            self._check_place(block)
            if any(
                intersect(SeqRange(block.header.first, block.header.last), self._required_ranges)
            ):
                self._check_lines(block)
            self._index.add(block.offset, block.header)
            self._raw_bytes += read_content_size(block.data)
            self.next_seq, self._end = Seq(block.header.last + 1), block.end
            advance(block.size)
        if self._file.kind is FileKind.OPEN:
            # A footer is present if the writer died before the rename.
            footer = read_footer(self._fd)
            end = footer.offset if footer else os.fstat(self._fd).st_size
            self.incomplete_bytes = max(0, end - self._end)
        else:
            self._check_end()

    def _summarize(self, content: bytes, ids: IdScheme) -> LineSummary | None:
        """Check the lines of a frame at once; if that does not prove them valid, later each."""
        self._times = None
        if len(content) >= MIN_BYTES_AT_ONCE:
            from busyapi.archive_cli.line_check import check_lines  # noqa: PLC0415 - loads numpy

            if checked := check_lines(content, ids):
                self._times = checked.times
                return summarize_times(*checked)
        return summarize_lines(content, ids)

    def _check_place(self, block: Block) -> None:
        """Check that a block follows the one before it, in bytes and in seqs."""
        header = block.header
        if (block.offset, header.first) != (self._end, self.next_seq):
            where = f"at {self._end}, the next is at {block.offset}"
            if block.offset == self._end:
                where = f"at {self._end}, where one of seq {header.first} is"
            detail = f"no complete block of seq {self.next_seq} {where}"
            self._report_damage(self.next_seq, Seq(header.first - 1), detail)
        if header.owner != self._partition.identity.owner_at(header.first):
            self._report_damage(header.first, header.last, "belongs to another partition")

    def _check_lines(self, block: Block) -> None:
        header = block.header
        try:
            content = block.read()
        except ArchiveDamaged as error:
            self._report_damage(header.first, header.last, str(error))
            return
        times: set[str] = set()
        invalid: list[Seq] = []
        if not self._are_lines_of(header, content, times):
            invalid = [
                Seq(seq)
                for seq, line in enumerate(content.split(b"\n")[:-1], header.first)
                if not self._is_line_of(Seq(seq), line, times)
            ]
        for first, last in intersect(SeqRange(header.first, header.last), self._required_ranges):
            self.usages += last - first + 1 - sum(first <= seq <= last for seq in invalid)
        if invalid:
            detail = f"{len(invalid)} of these lines are invalid or have another id"
            self._report_damage(invalid[0], invalid[-1], detail)
        if times and not _are_valid_times(times, header.earliest_ms, header.latest_ms):
            self._report_damage(header.first, header.last, "has a wrong receivedAt")

    def _are_lines_of(self, header: BlockHeader, content: bytes, times: set[str]) -> bool:
        """Return whether all lines belong to the seqs of a block; then add their times."""
        if self._times is not None:
            times |= {time.decode() for time in self._times}
            return True
        first, last = map(self._partition.id_of, (header.first, header.last))
        _, stride = self._partition.identity.owner_at(header.first)
        heads = read_heads(content)
        # Of an object that crosses a newline and of two in a line, `read_heads` does not know. If
        # all lines begin with a brace, there is none: see `line_check`.
        if not content.startswith(b"{") or content.count(b"\n{") != header.last - header.first:
            return False
        if heads is None or [head.id for head in heads] != list(range(first, last + 1, stride)):
            return False
        times |= {head.received_at for head in heads}
        return True

    def _is_line_of(self, seq: Seq, line: bytes, times: set[str]) -> bool:
        """Return whether a line belongs to a seq; add its receivedAt to `times`."""
        try:
            row = parse_line(line)
        except ArchiveDamaged:
            return False
        times.add(row.received_at)
        return row.id == self._partition.id_of(seq)

    def _check_end(self) -> None:
        """Check that a finished segment is complete, and that its summary matches its blocks."""
        if self.next_seq <= self._file.last:
            self._report_damage(self.next_seq, self._file.last, "ends too early")
        name = "footer"
        if read_format(self._fd) > 1:
            name = "index"
            if self.next_seq > self._file.last + 1:
                beyond = SeqRange(Seq(self._file.last + 1), Seq(self.next_seq - 1))
                self._report_damage(*beyond, "holds seqs that are not in its name")
            if os.fstat(self._fd).st_size > self._end:
                self._report_file_damage(f"bytes that are no block follow at {self._end}")
            index = self._partition.folder / paths.index_path(self._file)
            self.lacks_index = not index.exists()
            if self.lacks_index:
                return
        self._check_summary(name)

    def _check_summary(self, name: str) -> None:
        """Check the footer or the index, as it is named in a report."""
        folder, file = self._partition.folder, self._file
        summary = read_summary(self._fd, folder, file)
        if summary is None:
            self._report_file_damage(f"its {name} is damaged, or that of another file")
            return
        if summary.format > 1 and not has_valid_sections(folder, file):
            self._report_file_damage(
                "its index has a damaged section: busyapi archive upgrade writes it again"
            )
        if not verify_sha256(self._fd, summary):
            self._report_file_damage("its SHA-256 does not match")
        if not matches_file(summary, file, self._partition.identity.owner_at(file.first)):
            self._report_file_damage(f"its {name} belongs to another file")
        if not self._matches_blocks(summary):
            self._report_file_damage(f"its {name} does not match its blocks")

    def _matches_blocks(self, summary: SegmentSummary) -> bool:
        recorded = (summary.usages, summary.raw_bytes, summary.offset, summary.block_index.packed)
        usages = self._file.last - self._file.first + 1
        return recorded == (usages, self._raw_bytes, self._end, self._index.packed)

    def _report_damage(self, first: Seq, last: Seq, detail: str) -> None:
        """Report damage; in an open segment only at required seqs, or next to such a seq."""
        if self._file.kind is not FileKind.OPEN:
            self._report(first, last, detail)
            return
        if last < first and any(intersect(SeqRange(Seq(first - 1), first), self._required_ranges)):
            self._report(first, last, detail)
        for span in intersect(SeqRange(first, last), self._required_ranges):
            self._report(*span, detail)

    def _report_file_damage(self, detail: str) -> None:
        self._report_damage(self._file.first, Seq(self._file.first - 1), detail)


def _are_valid_times(times: Iterable[str], earliest_ms: int, latest_ms: int) -> bool:
    """Return whether all times have busyapi's format, and first and last match the header."""
    try:
        for time in times:
            datetime.fromisoformat(time)
        bounds = format_received_at(earliest_ms), format_received_at(latest_ms)
    except (ValueError, OverflowError, OSError):
        return False
    well_formed = all(_TIME.fullmatch(time) for time in times)
    return well_formed and (min(times), max(times)) == bounds
