"""Deletion of expired files.

A deletion cannot be undone, so it never depends on a single clock. A file's age is counted from the
newest `receivedAt` in the archive, which an API pod stamped, or from this machine's time, whichever
is older. If the two differ by more than two days, one of them is wrong, or no usage was received
for that long: then nothing is deleted. The newest segment is never deleted. A quarantine file has
no `receivedAt`: it is deleted with the segment after it.

Retention must never stop a writer from archiving: a file that cannot be read or deleted is
reported and skipped.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from busyapi.archive import identity, paths
from busyapi.archive.fsync import sync_folder
from busyapi.archive.identity import Identity
from busyapi.archive.paths import ArchiveFile, FileKind, utc_day
from busyapi.archive.reader import read_format, read_latest_received, read_summary
from busyapi.archive.segment_state import summarize_blocks
from busyapi.errors import ArchiveDamaged, ArchiveError, ArchiveFull, FsyncFailed
from busyapi.failpoints import failpoint
from busyapi.ids import Seq
from busyapi.strides import IdScheme

MAX_CLOCK_SKEW_SECONDS = 2 * 86_400
"""The allowed difference between the newest usage and this machine's clock."""
RETRY_INTERVAL_SECONDS = 60.0
"""The time between two attempts on a day on which retention was refused or failed."""


class ExpiredFiles(NamedTuple):
    """The files that retention may delete."""

    files: list[ArchiveFile]
    refusal: str
    """Why other files that look old are not deleted; empty if there are none."""


class Retention:
    """Retention of one partition."""

    def __init__(self, folder: Path, damage_reports: list[str], failed: set[Seq]) -> None:
        """Report each file that is skipped, and add its first seq to `failed`."""
        self.refusal = ""
        """Why old files are not deleted; empty if they are."""
        self._failed = failed
        self._damage_reports = damage_reports
        self._folder = folder
        self._done_on = ""
        self._next_try = 0.0
        self._has_clock_skew = False

    def is_due(self, latest_ms: int | None) -> bool:
        """Return whether to search for expired files: once a day, and again later if that failed.

        `latest_ms` is the latest receivedAt in the open segment. The check is cheap enough for
        every flush.
        """
        if self._done_on == paths.utc_day():
            return False
        if (
            self._has_clock_skew
            and latest_ms is not None
            and not _describe_clock_skew(latest_ms, time.time())
        ):
            return True
        return time.monotonic() >= self._next_try

    def delete_expired(
        self,
        current: Identity,
        files: Sequence[ArchiveFile],
        days: int,
        latest_ms: int | None,
        on_floor_raised: Callable[[Identity], None],
    ) -> list[ArchiveFile]:
        """Delete files that were created and received more than `days` ago; return them.

        The floor is raised on disk first, and passed to `on_floor_raised`. If the process dies
        after that, the next run deletes the files that are left below the floor. In the opposite
        order a deleted segment would look like a lost one. Failures are reported, not raised.
        """
        self._next_try = time.monotonic() + RETRY_INTERVAL_SECONDS
        today = paths.utc_day()
        try:
            old, self.refusal = self._find_expired(files, current, days, latest_ms)
            kept_from = max([current.kept_from, *(Seq(file.last + 1) for file in old)])
            if kept_from > current.kept_from:
                on_floor_raised(
                    identity.write_identity(self._folder, current._replace(kept_from=kept_from))
                )
        except ArchiveFull:
            return []  # the append on the full volume reports it
        except (OSError, ArchiveError, OverflowError) as error:
            self._report_damage(Seq(0), f"{self._folder}: retention failed: {error}")
            return []
        deleted = self._delete(old)
        if not self.refusal and len(deleted) == len(old):
            self._done_on = today
        return deleted

    def _find_expired(
        self, files: Sequence[ArchiveFile], current: Identity, days: int, latest_ms: int | None
    ) -> ExpiredFiles:
        """List the oldest segments and quarantine files, created more than `days` ago.

        Gap records stay: they hold no usage, and record which ids were never given to one. Files
        set aside stay too: only an operator deletes them.
        """
        now, kept_from, ids = time.time(), current.kept_from, current.ids
        newest = None
        if latest_ms is None:
            newest, latest_ms = self._find_newest(files, ids)
        if latest_ms is None:
            return ExpiredFiles([], "")
        later_limit = _day_limit(max(latest_ms / 1000, now), days)
        limit = _day_limit(min(latest_ms / 1000, now), days)
        skew = _describe_clock_skew(latest_ms, now)
        self._has_clock_skew = bool(skew)
        if skew:
            looks_old = any(_is_deletable(file) and file.day < later_limit for file in files)
            return ExpiredFiles([], skew if looks_old else "")
        today = utc_day(now + MAX_CLOCK_SKEW_SECONDS)
        old: list[ArchiveFile] = []
        for file in filter(_is_deletable, files):
            # A wrong clock made a folder of a future day: for its files only receivedAt counts.
            if file is newest or (file.last >= kept_from and limit <= file.day <= today):
                break
            try:
                latest = self._read_latest(file, ids)
            except (OSError, ArchiveDamaged) as error:
                self._report_damage(file.first, f"{self._folder / file.path} is skipped: {error}")
                continue
            # A file below the floor is always deleted: a process died before it unlinked it.
            if file.last >= kept_from and latest is not None and utc_day(latest / 1000) >= limit:
                is_future = latest / 1000 - now > MAX_CLOCK_SKEW_SECONDS
                return ExpiredFiles(
                    _drop_unproven(old, kept_from),
                    _describe_future_usage(file, latest) if is_future else "",
                )
            old.append(file)
        return ExpiredFiles(_drop_unproven(old, kept_from), "")

    def _find_newest(
        self, files: Sequence[ArchiveFile], ids: IdScheme
    ) -> tuple[ArchiveFile | None, int | None]:
        """Return the newest finished segment, and the latest receivedAt that can be read."""
        newest = None
        for file in reversed(files):
            if file.kind in {FileKind.SEGMENT, FileKind.OPEN}:
                newest = newest or (file if file.kind is FileKind.SEGMENT else None)
                with suppress(OSError, ArchiveDamaged):
                    if (latest := self._read_latest(file, ids)) is not None:
                        return (newest or file), latest
        return newest, None

    def _read_latest(self, file: ArchiveFile, ids: IdScheme) -> int | None:
        """Return the latest receivedAt in a segment; None for a file without receivedAt.

        Raises:
            ArchiveDamaged, OSError: it cannot be read.
        """
        if file.kind not in {FileKind.SEGMENT, FileKind.OPEN}:
            return None
        fd = os.open(self._folder / file.path, os.O_RDONLY)
        try:
            if file.kind is FileKind.OPEN:
                return read_latest_received(fd, ids)
            summary = read_summary(fd, self._folder, file)
            if summary is None and read_format(fd) > 1:
                summary = summarize_blocks(fd, file, ids)
        finally:
            os.close(fd)
        if summary is None:
            raise ArchiveDamaged("its blocks or its footer are damaged")
        if len(summary.block_index) == 0:
            raise ArchiveDamaged("its footer has no blocks")
        return max(entry.latest_ms for entry in summary.block_index)

    def _delete(self, files: Iterable[ArchiveFile]) -> list[ArchiveFile]:
        """Unlink files, and then the empty day folders; return the deleted files."""
        deleted = []
        for file in files:
            try:
                failpoint("archive-retention-unlink")
                (self._folder / file.path).unlink(missing_ok=True)
                # Recovery deletes an index without a segment, if the process dies here.
                (self._folder / paths.index_path(file)).unlink(missing_ok=True)
            except OSError as error:
                self._report_damage(
                    file.first,
                    f"{self._folder / file.path} is expired, but was not deleted: {error}",
                )
                continue
            deleted.append(file)
        for day in {file.day for file in deleted}:
            # If a power cut undoes a deletion, the file is below the floor and is deleted again.
            with suppress(FsyncFailed):
                sync_folder(self._folder / day)
            with suppress(OSError):  # not empty: gap records stay
                (self._folder / day).rmdir()
        return deleted

    def _report_damage(self, first: Seq, message: str) -> None:
        """Report damage, once for each file."""
        if first not in self._failed:
            self._failed.add(first)
            self._damage_reports.append(message)


def _is_deletable(file: ArchiveFile) -> bool:
    return file.kind in {FileKind.SEGMENT, FileKind.QUARANTINE}


def _drop_unproven(old: list[ArchiveFile], kept_from: Seq) -> list[ArchiveFile]:
    """Remove the last quarantine files from the list: no expired segment follows them.

    They have no receivedAt, and a single clock decided the day of their folder.
    """
    while old and old[-1].kind is FileKind.QUARANTINE and old[-1].last >= kept_from:
        old = old[:-1]
    return old


def _day_limit(seconds: float, days: int) -> str:
    return (date.fromisoformat(utc_day(seconds)) - timedelta(days=days)).isoformat()


def _describe_clock_skew(latest_ms: int, now: float) -> str:
    """Describe a difference between newest usage and clock that is too large; empty otherwise."""
    if abs(latest_ms / 1000 - now) <= MAX_CLOCK_SKEW_SECONDS:
        return ""
    return (
        f"retention deletes nothing: the newest usage was received at {_format_time(latest_ms)},"
        f" and this machine's clock says {_format_time(now * 1000)}. If no usage came for more"
        " than two days, the next one ends this. Otherwise correct the clock of this node, or of"
        " the nodes of the API"
    )


def _describe_future_usage(file: ArchiveFile, latest_ms: int) -> str:
    return (
        f"retention stops before {file.path}: it holds a usage that was received in the future, at"
        f" {_format_time(latest_ms)}. The clock of an API pod was wrong; the file is kept until"
        " that time"
    )


def _format_time(ms: float) -> str:
    try:
        return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{ms:.0f} ms after 1970"
