"""Appends records to the trail of one partition; each append is on disk when it returns.

    append ──> lock ──> find the end, if another process appended ──> write ──> fdatasync ──> head

A process that dies at any step leaves a trail that continues: torn bytes at the end of a file stay
where they are, and the next record begins a new file that says how many bytes of the file before
it count. Records are never rewritten.
"""

import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from busyapi.archive.fsync import (
    create_file,
    sync_file,
    sync_folder,
    translate_full_volume,
    write_at,
)
from busyapi.archive.paths import utc_day
from busyapi.audit.files import (
    AuditFile,
    audit_folder,
    give_to_owner,
    list_files,
    make_audit_folder,
    name_file,
)
from busyapi.audit.head import Head, write_head
from busyapi.audit.lock import lock_trail
from busyapi.audit.position import Position, TrailEnd, find_end
from busyapi.audit.record import (
    FORMAT_VERSION,
    GENESIS_HASH,
    AuditEntry,
    format_time,
    parse_time,
    seal_entry,
    seal_members,
)
from busyapi.audit.retention import find_expired
from busyapi.errors import ArchiveFull, FsyncFailed
from busyapi.failpoints import failpoint

MAX_FILE_BYTES = 64 << 20
"""A file of this size is followed by another one of the same day: a start reads the last file."""
MAX_RESERVE_BYTES = 64 << 20
RESERVE_PARTS = 50
"""The trail leaves free a fiftieth of the volume, at most MAX_RESERVE_BYTES: reads must not take
the last space from usages."""


Seal = Callable[[Position], tuple[bytes, Position]]
"""Renders lines that follow a position, and returns the position behind them."""


class FinishedFile(NamedTuple):
    """A file that gets no more records, and the last of them."""

    name: str
    head: Head


class AuditWriter:
    """The writer of one partition's trail. One thread at a time may use it."""

    def __init__(
        self, root: Path, partition: int, retention_days: int, max_file_bytes: int = MAX_FILE_BYTES
    ) -> None:
        self.folder = audit_folder(root, partition)
        self.finished: list[FinishedFile] = []
        """Files that ended since this list was last emptied."""
        self._partition = partition
        self._retention_days = retention_days
        self._max_file_bytes = max_file_bytes
        self._end: TrailEnd | None = None
        """None before the first append, and after an error that leaves the end unknown."""
        self._checked_on = ""
        """The day on which expired files were last searched."""

    @property
    def head(self) -> Head | None:
        """The last record that this process knows of."""
        position = self._end.position if self._end else None
        return Head(position.seq, position.hash) if position and position.seq else None

    def append(self, entries: Sequence[AuditEntry]) -> Head:
        """Put entries on disk, and return the last record.

        Raises:
            ArchiveFull: the volume has too little space.
            ArchiveLocked: another process holds the lock.
            FsyncFailed, OSError: what the disk holds is unknown; the entries do not count.
        """
        return self._append(lambda position: _seal_entries(entries, position))

    def note_resumed(self, failed: int) -> Head:
        """Record that the trail can be written again after this number of failed entries."""
        members = {"time": format_time(time.time()), "action": "resume", "failed": failed}
        return self._append(lambda position: _seal_one(members, position))

    def delete_expired(self) -> list[str]:
        """Once a day, record which files are expired, and delete them. Return their names.

        The record is first: what is missing without one was not deleted by retention.

        Raises:
            As `append`.
        """
        today = utc_day()
        if not self._retention_days or self._checked_on == today or not self.folder.is_dir():
            return []
        with lock_trail(self.folder):
            position = self._find_end().position
        expired, last = find_expired(
            list_files(self.folder, self._partition), position, self._retention_days
        )
        if expired and last:
            members = {
                "time": format_time(time.time()),
                "action": "expire",
                "files": len(expired),
                "through": last.seq,
                "through_hash": last.hash,
            }
            self._append(lambda at: _seal_one(members, at))
            failpoint("audit-before-unlink")
            for file in expired:
                file.path.unlink(missing_ok=True)
            sync_folder(self.folder)
        self._checked_on = today
        return [file.name for file in expired]

    def close(self) -> None:
        """Put the head on disk."""
        if head := self.head:
            write_head(self.folder, head, sync=True)

    def _append(self, seal: Seal) -> Head:
        with translate_full_volume(self.folder):
            make_audit_folder(self.folder)
            self._check_space()
            with lock_trail(self.folder):
                end = self._find_end()
                day = max(utc_day(), end.position.file.day if end.position.file else "")
                if why := self._why_new_file(end, day):
                    position = self._begin_file(end, day, why, seal)
                else:
                    position = self._extend_file(end.position, seal)
                self._end = TrailEnd(position, "")
                head = Head(position.seq, position.hash)
                write_head(self.folder, head, sync=False)
        return head

    def _find_end(self) -> TrailEnd:
        """Return the end that this process knows, or search it if the files are others."""
        if self._end and self._is_current(self._end):
            return self._end
        self._end = find_end(self.folder, self._partition, self.head)
        return self._end

    def _is_current(self, end: TrailEnd) -> bool:
        file = end.position.file
        newest = list_files(self.folder, self._partition)[-1:]
        if file is None or newest != [file]:
            return False
        # After a failed sync the file may hold more: those bytes do not count.
        return bool(end.why_new_file) or file.path.stat().st_size == end.position.size

    def _why_new_file(self, end: TrailEnd, day: str) -> str:
        position = end.position
        if end.why_new_file or position.file is None:
            return end.why_new_file or "new trail"
        if position.file.day != day:
            return "new day"
        return "full file" if position.size >= self._max_file_bytes else ""

    def _begin_file(self, end: TrailEnd, day: str, why: str, seal: Seal) -> Position:
        position = end.position
        begin_position = position
        members: dict[str, Any] = {
            "time": format_time(time.time()),
            "action": "begin",
            "version": FORMAT_VERSION,
            "trail": position.trail or secrets.token_hex(16),
            "partition": self._partition,
            "why": why,
        }
        if position.file:
            members["after"] = {"file": position.file.name, "bytes": position.size}
        if end.missing:
            missing = {"from": position.seq + 1, "through": end.missing.seq}
            members["missing"] = {**missing, "hash": end.missing.hash}
            begin_position = position._replace(seq=end.missing.seq)
        if not position.file and not end.missing:
            # From now on a missing head shows that someone has removed it.
            write_head(self.folder, Head(0, GENESIS_HASH), sync=True)
        file = self._next_file(day)
        members |= {"file": file.name, "previous": position.hash}
        data, after_begin = _seal_one(members, begin_position)
        more, last = seal(after_begin)
        self._create(file, data + more)
        if position.file:
            self.finished.append(
                FinishedFile(position.file.name, Head(position.seq, position.hash))
            )
        return last._replace(file=file, size=len(data + more), trail=members["trail"])

    def _next_file(self, day: str) -> AuditFile:
        files = list_files(self.folder, self._partition)
        number = max((file.number for file in files if file.day == day), default=0) + 1
        return name_file(self.folder, self._partition, day, number)

    def _create(self, file: AuditFile, data: bytes) -> None:
        fd = create_file(file.path)
        try:
            give_to_owner(fd, self.folder)
            self._write(fd, data, 0, file.name)
        except BaseException:
            with suppress(OSError):
                file.path.unlink()  # a failing disk must not collect such files
            raise
        finally:
            os.close(fd)

    def _extend_file(self, position: Position, seal: Seal) -> Position:
        assert position.file  # noqa: S101 - a trail without a file begins one
        data, last = seal(position)
        fd = os.open(position.file.path, os.O_RDWR)
        try:
            self._write(fd, data, position.size, position.file.name)
        except FsyncFailed:
            # The kernel may report the next sync of this file as a success: begin another.
            self._end = TrailEnd(position, "a sync failed")
            raise
        except OSError:
            with suppress(OSError):
                os.ftruncate(fd, position.size)  # no other process has read past this
            raise
        finally:
            os.close(fd)
        return last._replace(file=position.file, size=position.size + len(data))

    @staticmethod
    def _write(fd: int, data: bytes, offset: int, name: str) -> None:
        failpoint("audit-before-write")
        write_at(fd, data, offset)
        failpoint("audit-after-write")
        sync_file(fd, name)
        failpoint("audit-after-sync")

    def _check_space(self) -> None:
        volume = os.statvfs(self.folder)
        reserve = min(MAX_RESERVE_BYTES, volume.f_blocks * volume.f_frsize // RESERVE_PARTS)
        free = volume.f_bavail * volume.f_frsize
        if free < reserve:
            raise ArchiveFull(
                f"{self.folder}: only {free} bytes are free, and {reserve} are kept for usages"
            )


def _seal_entries(entries: Sequence[AuditEntry], position: Position) -> tuple[bytes, Position]:
    lines = []
    for entry in entries:
        line, digest = seal_entry(position.seq + 1, entry, position.hash)
        lines.append(line)
        seconds = parse_time(entry.time)
        position = position._replace(seq=position.seq + 1, hash=digest, seconds=seconds)
    return b"".join(lines), position


def _seal_one(members: dict[str, Any], position: Position) -> tuple[bytes, Position]:
    line, digest = seal_members({"seq": position.seq + 1, **members}, position.hash)
    return line, position._replace(seq=position.seq + 1, hash=digest)
