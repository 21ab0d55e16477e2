"""Recovery of an archive after a crash, a full disk or damage: afterwards its files are reliable.

    temporary file            removed: it is incomplete
    newest finished segments  read and hashed; a damaged one is set aside, never deleted
    open segment              its complete blocks are copied into a new, finished segment; unlinked
      torn at its end           the torn block was never synced: it is dropped
      doubtful end              kept as `.torn`, an old name for a doubtful end, until its seqs are
                                archived from Redis; not reported
      damaged, or shorter than  set aside; published usages are missing
        the high-water mark
    file set aside            its complete blocks go into new segments; between them are holes
    index                     rebuilt if it does not match its segment; removed without one, or if
                              its segment was open

Recovery never appends to an open file: after a failed fsync the page cache may differ from the
disk, so only a new file with its own fsync is known to be on disk. A hole stays until an operator
runs `busyapi archive accept-loss`.

If the process dies during recovery, the next recovery finds one of the states above: a block is
copied only if no finished file holds its seqs, and its source is unlinked only after that. Of older
segments only the names are read.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from busyapi.archive import paths
from busyapi.archive.compression import read_content_size
from busyapi.archive.format_version import require_known_version
from busyapi.archive.fsync import rename_file, sync_folder
from busyapi.archive.identity import Identity
from busyapi.archive.index_file import replace_index
from busyapi.archive.open_index import read_open_index
from busyapi.archive.open_segment import OpenSegmentScan, scan_open_segment
from busyapi.archive.paths import TEMPORARY_SUFFIX, ArchiveFile, FileKind
from busyapi.archive.ranges import SeqRange, find_holes, find_overlaps
from busyapi.archive.reader import Block, read_block_again, scan_blocks
from busyapi.archive.segment import Segment
from busyapi.archive.segment_state import inspect_segment
from busyapi.errors import ArchiveDamaged
from busyapi.failpoints import failpoint
from busyapi.ids import Seq

CHECKED_SEGMENTS = 3
"""The number of newest finished segments that each recovery reads completely."""


class Recovery:
    """One recovery of a partition that this process has locked."""

    def __init__(self, folder: Path, identity: Identity, high_water: Seq) -> None:
        self.damage_reports: list[str] = []
        """Damage, one sentence each, to be logged."""
        self.files: list[ArchiveFile] = []
        self.unreadable: set[Seq] = set()
        """The first seq of each finished segment that the disk cannot read."""
        self.high_water = high_water
        """The high-water mark: all seqs up to it were on disk once."""
        self._doubtful: list[ArchiveFile] = []
        self._index_paths: list[str] = []
        self._folder = folder
        self._identity = identity

    def run(self) -> list[ArchiveFile]:
        """Recover, and return the partition's files in order, without an open segment.

        Raises:
            ArchiveDamaged: two files hold the same seqs.
        """
        self._list_files()
        for file in self._files_of(FileKind.SEGMENT)[-CHECKED_SEGMENTS:]:
            if not self._is_usable(file):
                self._set_aside(file, file.last)
        scans = [(file, self._copy_blocks(file)) for file in self._files_of(FileKind.OPEN)]
        for file, scan in scans:
            self._finish_open_segment(file, scan)
        for file in self._files_of(FileKind.DAMAGED):
            self._salvage(file)
        for one, other in find_overlaps(self.files):
            raise ArchiveDamaged(
                f"{one.path} and {other.path} in {self._folder} hold the same seqs. If you restored"
                " one of them from a backup, keep it and move the other one off the volume, as the"
                " runbook of BusyapiFlusherHalted says (Fix, step 3)"
            )
        self._delete_archived_doubtful()
        self._delete_stray_indexes()
        return self.files

    def _list_files(self) -> None:
        files, others, self._index_paths = paths.list_files(self._folder, self._identity.partition)
        self._doubtful = [file for file in files if file.kind is FileKind.DOUBTFUL]
        self.files = sorted(
            self._hide(file) if file.kind is FileKind.OPEN else file
            for file in files
            if file.kind is not FileKind.DOUBTFUL
        )
        for path in others:
            if path.endswith(TEMPORARY_SUFFIX):
                # The process of a killed flusher that makes filters may rename it just now.
                (self._folder / path).unlink(missing_ok=True)
        # The process that renamed the newest files may have died before it synced the folder.
        sync_folder(self._folder)
        newest = [*self.files[-CHECKED_SEGMENTS:], *self._files_of(FileKind.OPEN)]
        for day in {file.day for file in newest}:
            sync_folder(self._folder / day)

    def _hide(self, file: ArchiveFile) -> ArchiveFile:
        """Rename an open segment, so that it does not match the pattern of finished ones.

        Otherwise a reader of this pattern would find its usages twice, here and in the copy.
        """
        hidden = paths.name_file(FileKind.OPEN, file.day, self._identity.partition, file.first)
        if hidden.path == file.path or (self._folder / hidden.path).exists():
            return file
        failpoint("archive-recover-hide")
        (self._folder / file.path).rename(self._folder / hidden.path)
        return hidden

    def _files_of(self, kind: FileKind) -> list[ArchiveFile]:
        return [file for file in self.files if file.kind is kind]

    @contextmanager
    def _open_file(self, file: ArchiveFile) -> Iterator[int]:
        fd = os.open(self._folder / file.path, os.O_RDONLY)
        try:
            if file.kind in {FileKind.SEGMENT, FileKind.OPEN}:
                require_known_version(fd, str(self._folder / file.path))
            yield fd
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise ArchiveDamaged(f"{self._folder / file.path} cannot be read or copied") from error
        finally:
            os.close(fd)

    def _is_usable(self, file: ArchiveFile) -> bool:
        """Return whether a finished segment keeps its name.

        A segment that the disk cannot read keeps it too, and is reported as damaged: all
        its usages were published, and a halt would repair nothing.
        """
        try:
            return self._is_intact(file)
        except ArchiveDamaged as error:
            self.damage_reports.append(str(error))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.damage_reports.append(
                f"{self._folder / file.path} cannot be opened: {error.strerror}"
            )
        self.unreadable.add(file.first)
        return True

    def _is_intact(self, file: ArchiveFile) -> bool:
        """Return whether a finished segment is as its writer left it; repair its index."""
        with self._open_file(file) as fd:
            state = inspect_segment(fd, self._folder, file, self._identity.ids)
        if state.problem:
            self.damage_reports.append(f"{self._folder / file.path} {state.problem}")
        if state.new_index:
            with suppress(OSError):  # on a full volume lookups do without it
                replace_index(self._folder, file, state.new_index)
        return state.is_readable

    def _copy_blocks(self, file: ArchiveFile) -> OpenSegmentScan:
        """Copy the complete blocks of an open segment that no finished file holds."""
        ids = self._identity.ids
        known = read_open_index(self._folder / paths.index_path(file))
        with self._open_file(file) as fd:
            scan = scan_open_segment(fd, file.first, ids, known)
            missing = self._list_missing(scan.first_seq(file.first), scan.last_seq(Seq(0)))
            self._copy_missing(fd, file.day, scan.blocks, missing)
        return scan

    def _finish_open_segment(self, file: ArchiveFile, scan: OpenSegmentScan) -> None:
        """Unlink an open segment, or set it aside if it may hold usages that no other file holds.

        Blocks are synced one by one, so no block follows a torn one, and a torn one leaves no hole.
        A hole, or an end below the high-water mark, means that the disk has changed stored data.
        """
        last = scan.last_seq(Seq(file.first - 1))
        end = self._published_end(last) if scan.tail_bytes else last
        if end > last or any(find_holes(self.files, scan.first_seq(file.first), last)):
            self._set_aside(file, end)
        elif scan.is_explained_by_crash:
            failpoint("archive-recover-before-unlink")
            self._unlink(file)
        else:
            self._keep_doubtful(file, scan, Seq(last + 1))

    def _is_own_block(self, block: Block) -> bool:
        return block.header.owner == self._identity.owner_at(block.header.first)

    def _salvage(self, file: ArchiveFile) -> None:
        """Copy the complete blocks of a file set aside that no finished file holds."""
        if missing := self._list_missing(file.first, file.last):
            with self._open_file(file) as fd:
                self._copy_missing(fd, file.day, scan_blocks(fd, self._identity.ids), missing)

    def _list_missing(self, first: Seq, last: Seq) -> list[SeqRange]:
        return list(find_holes(self.files, max(first, self._identity.kept_from), last))

    def _copy_missing(
        self, fd: int, day: str, blocks: Iterable[Block], missing: list[SeqRange]
    ) -> None:
        """Copy the blocks that fill holes into finished segments, one for each run."""
        runs: list[list[Block]] = []
        for block in blocks:
            if self._is_own_block(block) and _fills(block, missing):
                if not runs or block.header.first != runs[-1][-1].header.last + 1:
                    runs.append([])
                runs[-1].append(block.without_data())
        for run in runs:
            self._copy_run(fd, day, run)

    def _copy_run(self, fd: int, day: str, run: list[Block]) -> None:
        """Copy blocks that follow each other into one finished segment, on disk."""
        copy = Segment(self._folder, self._identity, day, run[0].header.first, TEMPORARY_SUFFIX)
        try:
            for position in run:
                block = read_block_again(fd, position, f"a segment of {day}")
                written = copy.write(block.header, block.data)
                copy.accept(block.header, written, read_content_size(block.data))
            failpoint("archive-recover-copied")
            self._add_file(copy.finish())
        except BaseException:
            copy.remove()  # on a full volume every byte counts
            raise
        finally:
            copy.close()

    def _set_aside(self, file: ArchiveFile, last: Seq) -> None:
        """Rename a damaged file."""
        aside = self._rename(file, FileKind.DAMAGED, SeqRange(file.first, last))
        self._add_file(aside)
        self.damage_reports.append(
            f"{self._folder / file.path} is damaged, and set aside as {aside.path}"
        )

    def _published_end(self, last: Seq) -> Seq:
        """Return the last of the seqs after `last` that were once on disk and are in no file."""
        lost = next(find_holes(self.files, Seq(last + 1), self.high_water), None)
        return lost.last if lost and lost.first == last + 1 else last

    def _keep_doubtful(self, file: ArchiveFile, scan: OpenSegmentScan, first: Seq) -> None:
        """Rename an open segment whose last block was not published, as far as is known.

        The new name has the seqs that this block may hold: at most the bound, after the cursor.
        """
        end = Seq(first + self._identity.bound - 1)
        last = min(scan.next_header.last, end) if scan.next_header else end
        self._doubtful.append(
            self._rename(file, FileKind.DOUBTFUL, SeqRange(first, max(first, last)))
        )

    def _rename(self, file: ArchiveFile, kind: FileKind, span: SeqRange) -> ArchiveFile:
        """Set a file aside under an unused name."""
        aside = paths.name_file(kind, file.day, self._identity.partition, *span)
        path, number = aside.path, 1
        while (self._folder / path).exists():
            number += 1
            path = f"{aside.path}{number}"
        failpoint("archive-recover-set-aside")
        rename_file(self._folder / file.path, self._folder / path)
        self.files.remove(file)
        return aside._replace(path=path)

    def _delete_archived_doubtful(self) -> None:
        """Delete the doubtful files whose seqs have been archived from Redis since."""
        archived = self._files_of(FileKind.SEGMENT)
        for file in self._doubtful:
            if not any(find_holes(archived, max(file.first, self._identity.kept_from), file.last)):
                with suppress(OSError):  # the next recovery tries again
                    (self._folder / file.path).unlink()

    def _delete_stray_indexes(self) -> None:
        """Delete the indexes without a segment: a crash left them, or the segment was set aside."""
        used = {paths.index_path(file) for file in self._files_of(FileKind.SEGMENT)}
        for path in set(self._index_paths) - used:
            with suppress(OSError):  # the next recovery tries again
                (self._folder / path).unlink()

    def _unlink(self, file: ArchiveFile) -> None:
        (self._folder / file.path).unlink()
        failpoint("archive-recover-unlinked")
        sync_folder(self._folder / file.day)
        self.files.remove(file)

    def _add_file(self, file: ArchiveFile) -> None:
        self.files.append(file)
        self.files.sort()


def _fills(block: Block, missing: list[SeqRange]) -> bool:
    header = block.header
    return any(hole.first <= header.first and header.last <= hole.last for hole in missing)
