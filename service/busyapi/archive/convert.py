"""Rewriting of a finished segment in another format.

    copy blocks ──> sync ──> read back, compare ──> is the old file still there? ──> index, rename

The blocks' zstd frames are the same bytes in both formats. The new file replaces the old one by a
rename, so at each moment one of them has the name, and both hold the same usages. If the process
dies, a temporary file is left, or an index that its segment does not have yet: neither counts.

A flusher may run meanwhile, if the segment is not one of the newest, which its recovery may set
aside. Retention may delete the segment at any time.
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from busyapi.archive import paths
from busyapi.archive.compression import read_content_size
from busyapi.archive.identity import Identity, read_identity
from busyapi.archive.index_file import has_valid_sections, read_patients, replace_index
from busyapi.archive.lock import is_same_file, try_flock
from busyapi.archive.paths import ArchiveFile
from busyapi.archive.patient_filter import PatientCollector
from busyapi.archive.reader import (
    matches_file,
    read_format,
    read_summary,
    scan_blocks,
    verify_sha256,
)
from busyapi.archive.segment import Segment
from busyapi.archive.segment_state import summarize_blocks
from busyapi.errors import ArchiveDamaged, ArchiveLocked, ArchiveTakenOver
from busyapi.failpoints import failpoint
from busyapi.ids import Seq

COPY_SUFFIX = f".convert{paths.TEMPORARY_SUFFIX}"
"""Before it each copy has a random part. Without flock a second conversion may run, and delete this
copy: then it is gone, and no rename can take another file for it."""
_LOCK_NAME = ".convert"
LOCK_POLL_SECONDS = 0.05
"""A process that makes filters leaves the lock free for longer between two segments."""


class Conversion(Enum):
    """What was done with a segment."""

    NOTHING = "was of this format"
    INDEXED = "got its index"
    REWRITTEN = "was rewritten"


def convert_segment(folder: Path, file: ArchiveFile, identity: Identity, target: int) -> Conversion:
    """Rewrite a finished segment in a format, on disk.

    The caller holds the folder's lock for conversions. If the target is format 1, it also holds the
    folder's lock, because the identity still says 2.

    Raises:
        ArchiveDamaged: the segment is not intact; it stays as it is.
        ArchiveTakenOver: another process deleted or replaced it meanwhile, or removed the copy.
        OSError, FsyncFailed: the old segment is still there.
    """
    fd = os.open(folder / file.path, os.O_RDONLY)
    try:
        if read_format(fd) == target:
            return Conversion.NOTHING
        _require_intact(fd, folder, file, identity)
        rewritten = identity._replace(format=target)
        copy = Segment(folder, rewritten, file.day, file.first, _make_suffix())
        try:
            _copy_blocks(fd, copy, file, identity)
            failpoint("archive-convert-copied")
            _require_present(fd, folder, file)
            copy.finish()
        except BaseException:
            copy.remove()
            raise
        finally:
            copy.close()
    finally:
        os.close(fd)
    _delete_if_expired(folder, file)
    return Conversion.REWRITTEN


def _make_suffix() -> str:
    return f".{secrets.token_hex(4)}{COPY_SUFFIX}"


def delete_copies(folder: Path) -> None:
    """Delete the copies that a killed conversion left, under the lock for conversions."""
    for path in folder.glob(f"*/*{COPY_SUFFIX}"):
        path.unlink(missing_ok=True)


@contextmanager
def exclude_other_conversions(folder: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Let no second conversion run in a folder.

    Raises:
        ArchiveLocked: one is running, and has not ended in this time.
    """
    fd = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o640)
    end = time.monotonic() + wait_seconds
    try:
        # Without flock, two conversions only disturb each other: no copy has another's name.
        while not _try_lock(fd):
            if time.monotonic() >= end:
                raise ArchiveLocked(f"another conversion is running in {folder}")
            time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        try_flock(fd)
    except BlockingIOError:
        return False
    return True


def complete_index(folder: Path, file: ArchiveFile, identity: Identity) -> Conversion:
    """Make the index of a segment of format 2 if it is missing or has no filter of patients.

    This is safe for the newest segments too, while a flusher runs or starts. The segment stays as
    it is, and so does what its index states. Recovery sets aside only a segment that cannot be
    read, and that gets no index here. An index that is left without a segment does not count.

    Raises: as `convert_segment`.
    """
    fd = os.open(folder / file.path, os.O_RDONLY)
    try:
        if read_format(fd) == 1:
            return Conversion.NOTHING
        stated = read_summary(fd, folder, file)
        if (
            stated
            and read_patients(folder, file, stated.sha256)
            and has_valid_sections(folder, file)
        ):
            return Conversion.NOTHING
        patients = PatientCollector(file.seq_count)
        summary = summarize_blocks(fd, file, identity.ids, patients.add)
        if summary is None or (stated and stated.sha256 != summary.sha256):
            # The old index stays: it proves that a byte has changed.
            raise ArchiveDamaged(f"{file.path} is damaged")
        replace_index(folder, file, summary, patients.build())
        if not is_same_file(fd, folder / file.path):  # retention deleted it meanwhile
            (folder / paths.index_path(file)).unlink(missing_ok=True)
        return Conversion.INDEXED
    finally:
        os.close(fd)


def _require_intact(fd: int, folder: Path, file: ArchiveFile, identity: Identity) -> None:
    summary = read_summary(fd, folder, file)
    if summary is None and read_format(fd) > 1:
        summary = summarize_blocks(fd, file, identity.ids)
    if (
        summary is None
        or not matches_file(summary, file, identity.owner_at(file.first))
        or not verify_sha256(fd, summary)
    ):
        raise ArchiveDamaged(f"{file.path} is damaged")


def _copy_blocks(fd: int, copy: Segment, file: ArchiveFile, identity: Identity) -> None:
    """Copy all blocks, put them on disk, and compare what can be read back."""
    next_seq, end, owner = file.first, 0, identity.owner_at(file.first)
    for block in scan_blocks(fd, identity.ids):
        if (block.header.first, block.offset, block.header.owner) != (next_seq, end, owner):
            raise ArchiveDamaged(f"{file.path}: no complete block of seq {next_seq} at {end}")
        written = copy.write(block.header, block.data)
        copy.accept(block.header, written, read_content_size(block.data))
        next_seq, end = Seq(block.header.last + 1), block.end
    if next_seq != file.last + 1:
        raise ArchiveDamaged(f"{file.path} ends too early")
    copy.sync()
    for old, new in zip(scan_blocks(fd, identity.ids), copy.read_blocks(), strict=True):
        if (old.header, old.data) != (new.header, new.data):
            raise ArchiveDamaged(f"{file.path}: the copy of the block at {old.offset} differs")


def _require_present(fd: int, folder: Path, file: ArchiveFile) -> None:
    if not is_same_file(fd, folder / file.path):
        raise ArchiveTakenOver(f"{file.path} was deleted or replaced meanwhile")


def _delete_if_expired(folder: Path, file: ArchiveFile) -> None:
    """Delete a segment again that retention deleted just before the rename."""
    current = read_identity(folder)
    if current and file.last < current.kept_from:
        (folder / file.path).unlink(missing_ok=True)
        (folder / paths.index_path(file)).unlink(missing_ok=True)
