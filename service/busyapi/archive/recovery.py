"""Recovery: from whatever a crash, a full disk or rot left behind to files that can be trusted.

    temporary file            removed: it was not whole
    newest finished segments  read and hashed; one that does not hold is set aside, never deleted
    open segment              its whole blocks are copied into a new, finished segment; unlinked
      torn at its end           the torn block was never synced: it is dropped
      its end in doubt          kept as `.torn` until its seqs are archived from Redis; no alarm
      damaged, or shorter than  set aside; what was published is missing
        the high-water mark
    set aside                 its whole blocks go into new segments, what lies between is a hole

An open file is never written on: after a failed fsync the page cache may hold what the disk does
not, and only a new file with an fsync of its own is known to be there. A hole stays until a
person types `busyapi archive accept-loss`.

If we die anywhere in here, the next recovery finds one of the states above: a block is copied
only where no finished file holds its seqs, and a source is unlinked only after that. Of old
segments nothing is read but their names.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from busyapi.archive import paths
from busyapi.archive.compression import read_content_size
from busyapi.archive.format_version import require_known_version
from busyapi.archive.fsync import rename_file, sync_folder
from busyapi.archive.identity import Identity
from busyapi.archive.open_segment import OpenSegmentScan, scan_open_segment
from busyapi.archive.paths import TEMPORARY_SUFFIX, ArchiveFile, FileKind
from busyapi.archive.ranges import SeqRange, find_holes, find_overlaps
from busyapi.archive.reader import (
    Frame,
    matches_file,
    read_block_at,
    read_footer,
    scan_frames,
    verify_sha256,
)
from busyapi.archive.segment import Segment
from busyapi.errors import ArchiveDamaged
from busyapi.failpoints import failpoint
from busyapi.ids import Seq

CHECKED_SEGMENTS = 3
"""The newest finished segments that are read whole at each recovery."""


class Recovery:
    """One recovery of one partition, whose lock is held."""

    def __init__(self, folder: Path, identity: Identity, reached: Seq) -> None:
        self.alarms: list[str] = []
        """What was found damaged: to be logged and looked at."""
        self.files: list[ArchiveFile] = []
        self.unreadable: set[Seq] = set()
        """The first seqs of finished segments that the disk does not give back."""
        self.high_water = reached
        """The high-water mark: all seqs up to there were on disk once."""
        self._torn: list[ArchiveFile] = []
        self._folder = folder
        self._identity = identity

    def run(self) -> list[ArchiveFile]:
        """Repair, and return the partition's files in order; none is open.

        Raises:
            ArchiveDamaged: two files hold the same seqs.
        """
        self._list_files()
        for each in self._files_of(FileKind.SEGMENT)[-CHECKED_SEGMENTS:]:
            if not self._is_sound(each):
                self._set_aside(each, each.last)
        opened = [(each, self._copy_whole(each)) for each in self._files_of(FileKind.OPEN)]
        for each, found in opened:
            self._finish_open_segment(each, found)
        for each in self._files_of(FileKind.DAMAGED):
            self._salvage(each, each.last)
        for one, other in find_overlaps(self.files):
            raise ArchiveDamaged(
                f"{one.path} and {other.path} in {self._folder} hold the same seqs: move one away"
            )
        self._delete_archived_torn()
        return self.files

    def _list_files(self) -> None:
        files, others = paths.list_files(self._folder, self._identity.partition)
        self._torn = [each for each in files if each.kind is FileKind.TORN]
        self.files = [each for each in files if each.kind is not FileKind.TORN]
        for each in others:
            if each.endswith(TEMPORARY_SUFFIX):
                (self._folder / each).unlink()
        # Who renamed the newest files may have died before the folder was synced.
        sync_folder(self._folder)
        newest = [*self.files[-CHECKED_SEGMENTS:], *self._files_of(FileKind.OPEN)]
        for day in {each.day for each in newest}:
            sync_folder(self._folder / day)

    def _files_of(self, kind: FileKind) -> list[ArchiveFile]:
        return [each for each in self.files if each.kind is kind]

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

    def _is_sound(self, file: ArchiveFile) -> bool:
        """Tell whether a finished segment can stay what it is.

        One that the disk does not read stays too: all in it was published, and nothing becomes
        better by a halt. It is an alarm.
        """
        try:
            return self._is_intact(file)
        except ArchiveDamaged as error:
            self.alarms.append(str(error))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.alarms.append(f"{self._folder / file.path} cannot be opened: {error.strerror}")
        self.unreadable.add(file.first)
        return True

    def _is_intact(self, file: ArchiveFile) -> bool:
        """Tell whether a finished segment is what its writer made."""
        with self._open_file(file) as fd:
            footer = read_footer(fd)
            return (
                footer is not None
                and matches_file(footer, file, self._identity.partition, self._identity.partitions)
                and verify_sha256(fd, footer)
            )

    def _copy_whole(self, file: ArchiveFile) -> OpenSegmentScan:
        """Copy the whole blocks of an open segment, as far as no finished file holds them."""
        with self._open_file(file) as fd:
            found = scan_open_segment(fd)
        self._salvage(file._replace(first=found.first_seq(file.first)), found.last_seq(Seq(0)))
        return found

    def _finish_open_segment(self, file: ArchiveFile, found: OpenSegmentScan) -> None:
        """Unlink an open segment, or set it aside if it may hold what no file does now.

        Blocks are synced one by one, so a torn one has none behind it and leaves no hole. A hole,
        or an end below the high-water mark, means that the disk has changed what was once there.
        """
        last = found.last_seq(Seq(file.first - 1))
        end = self._published_end(last) if found.tail_bytes else last
        if end > last or any(find_holes(self.files, found.first_seq(file.first), last)):
            self._set_aside(file, end)
        elif found.is_torn:
            failpoint("archive-recover-before-unlink")
            self._unlink(file)
        else:
            self._keep_torn(file, found, Seq(last + 1))

    def _is_own_frame(self, frame: Frame) -> bool:
        of = (frame.block.partition, frame.block.partitions)
        return of == (self._identity.partition, self._identity.partitions)

    def _salvage(self, file: ArchiveFile, last: Seq) -> None:
        """Copy the whole blocks that fill holes into finished segments, one for each run."""
        missing = list(find_holes(self.files, max(file.first, self._identity.kept_from), last))
        if not missing:
            return
        with self._open_file(file) as fd:
            runs: list[list[Frame]] = []
            for frame in scan_frames(fd):
                if self._is_own_frame(frame) and _fills(frame, missing):
                    if not runs or frame.block.first != runs[-1][-1].block.last + 1:
                        runs.append([])
                    runs[-1].append(frame._replace(data=b""))
            for each in runs:
                self._copy(fd, file.day, each)

    def _copy(self, fd: int, day: str, run: list[Frame]) -> None:
        """Copy blocks that follow each other into one finished segment, on disk."""
        copy = Segment(self._folder, self._identity, day, run[0].block.first, TEMPORARY_SUFFIX)
        try:
            for each in run:
                frame = read_block_at(fd, each.offset, f"a segment of {day}")
                written = copy.write(frame.block, frame.data)
                copy.accept(frame.block, written, read_content_size(frame.data))
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
        self.alarms.append(f"{self._folder / file.path} is damaged, and set aside as {aside.path}")

    def _published_end(self, last: Seq) -> Seq:
        """Return the last seq behind `last` that was once on disk and is in no file."""
        lost = next(find_holes(self.files, Seq(last + 1), self.high_water), None)
        return lost.last if lost and lost.first == last + 1 else last

    def _keep_torn(self, file: ArchiveFile, found: OpenSegmentScan, first: Seq) -> None:
        """Rename an open segment whose last block was not published, as far as is known.

        Its name has the seqs that this block may hold. No more than the bound can follow the
        cursor.
        """
        end = Seq(first + self._identity.bound - 1)
        last = min(found.next_block.last, end) if found.next_block else end
        self._torn.append(self._rename(file, FileKind.TORN, SeqRange(first, max(first, last))))

    def _rename(self, file: ArchiveFile, kind: FileKind, span: SeqRange) -> ArchiveFile:
        """Set a file aside under a name that no file has."""
        aside = paths.make_file(kind, file.day, self._identity.partition, *span)
        path, n = aside.path, 1
        while (self._folder / path).exists():
            n += 1
            path = f"{aside.path}{n}"
        failpoint("archive-recover-set-aside")
        rename_file(self._folder / file.path, self._folder / path)
        self.files.remove(file)
        return aside._replace(path=path)

    def _delete_archived_torn(self) -> None:
        """Delete what was kept in doubt and has been archived since, from Redis."""
        archived = [each for each in self.files if each.kind is FileKind.SEGMENT]
        for each in self._torn:
            if not any(find_holes(archived, max(each.first, self._identity.kept_from), each.last)):
                with suppress(OSError):  # to be tried again
                    (self._folder / each.path).unlink()

    def _unlink(self, file: ArchiveFile) -> None:
        (self._folder / file.path).unlink()
        failpoint("archive-recover-unlinked")
        sync_folder(self._folder / file.day)
        self.files.remove(file)

    def _add_file(self, file: ArchiveFile) -> None:
        self.files.append(file)
        self.files.sort()


def _fills(frame: Frame, missing: list[SeqRange]) -> bool:
    block = frame.block
    return any(each.first <= block.first and block.last <= each.last for each in missing)
