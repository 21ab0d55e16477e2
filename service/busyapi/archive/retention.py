"""Which files are older than they are kept, and their end.

A deletion cannot be undone, so no single clock decides it. A file's age counts from the newest
`receivedAt` in the archive, which API pods stamped, or from this machine's time, whichever is
older. If the two differ by more than two days, one of them is wrong, or nothing was received for
that long: nothing is deleted then. The newest segment is never deleted. A quarantine file has no
`receivedAt`: it is deleted with the segment behind it.

Nothing in here may keep a writer from archiving: what cannot be read or deleted is reported with
its name, and passed over.
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
from busyapi.archive.reader import read_footer, read_latest_received
from busyapi.errors import ArchiveDamaged, ArchiveError, ArchiveFull, FsyncFailed
from busyapi.failpoints import failpoint
from busyapi.ids import Seq

MAX_CLOCK_SKEW_SECONDS = 2 * 86_400
"""By how much the newest usage and this machine's clock may differ."""
RETRY_INTERVAL_SECONDS = 60.0
"""Between two tries on a day on which retention was refused or failed."""


class ExpiredFiles(NamedTuple):
    """What retention may delete."""

    files: list[ArchiveFile]
    refused: str
    """Why nothing more is deleted although files look old, "" if they do not."""


class Retention:
    """The end of one partition's old files."""

    def __init__(self, folder: Path, alarms: list[str], failed: set[Seq]) -> None:
        """Report to `alarms` what is passed over, and add its first seq to `failed`."""
        self.refusal = ""
        """Why old files are not deleted, "" if they are."""
        self._failed = failed
        self._alarms = alarms
        self._folder = folder
        self._done_on = ""
        self._next_try = 0.0
        self._clocks_apart = False

    def is_due(self, latest_ms: int | None) -> bool:
        """Return whether to look for old files: once a day, later again if that failed.

        `latest_ms` is the latest receivedAt in the open segment. Cheap enough for every flush.
        """
        if self._done_on == paths.utc_day():
            return False
        if (
            self._clocks_apart
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
        """Delete files that were opened and received more than `days` ago; return them.

        The floor is on disk first, and `on_floor_raised` is called. If we die after that, what is
        left below it is deleted by the next run; the other way round a deleted segment would look
        like a lost one. No failure is raised.
        """
        self._next_try = time.monotonic() + RETRY_INTERVAL_SECONDS
        today = paths.utc_day()
        try:
            old, self.refusal = self._find_expired(files, current.kept_from, days, latest_ms)
            kept_from = max([current.kept_from, *(Seq(each.last + 1) for each in old)])
            if kept_from > current.kept_from:
                on_floor_raised(
                    identity.write_identity(self._folder, current._replace(kept_from=kept_from))
                )
        except ArchiveFull:
            return []  # counted where usages are refused for it
        except (OSError, ArchiveError, OverflowError) as error:
            self._alarm(Seq(0), f"{self._folder}: retention failed: {error}")
            return []
        deleted = self._delete(old)
        if not self.refusal and len(deleted) == len(old):
            self._done_on = today
        return deleted

    def _find_expired(
        self, files: Sequence[ArchiveFile], kept_from: Seq, days: int, latest_ms: int | None
    ) -> ExpiredFiles:
        """List the oldest segments and quarantine files opened more than this many days ago.

        Gap records stay: they hold no usage, and say which ids never were one. So do files set
        aside, which are a person's to delete.
        """
        now = time.time()
        newest = None
        if latest_ms is None:
            newest, latest_ms = self._find_newest(files)
        if latest_ms is None:
            return ExpiredFiles([], "")
        soonest = _day_limit(max(latest_ms / 1000, now), days)
        limit = _day_limit(min(latest_ms / 1000, now), days)
        apart = _describe_clock_skew(latest_ms, now)
        self._clocks_apart = bool(apart)
        if apart:
            looks_old = any(_is_deletable(each) and each.day < soonest for each in files)
            return ExpiredFiles([], apart if looks_old else "")
        today = utc_day(now + MAX_CLOCK_SKEW_SECONDS)
        old: list[ArchiveFile] = []
        for each in filter(_is_deletable, files):
            # A folder of a day to come was made by a wrong clock: what was received decides.
            if each is newest or (each.last >= kept_from and limit <= each.day <= today):
                break
            try:
                latest = self._read_latest(each)
            except (OSError, ArchiveDamaged) as error:
                self._alarm(each.first, f"{self._folder / each.path} is passed over: {error}")
                continue
            # Below the floor: we died after raising it, before the file was unlinked.
            if each.last >= kept_from and latest is not None and utc_day(latest / 1000) >= limit:
                future = latest / 1000 - now > MAX_CLOCK_SKEW_SECONDS
                return ExpiredFiles(
                    _drop_unproven(old, kept_from),
                    _describe_future_usage(each, latest) if future else "",
                )
            old.append(each)
        return ExpiredFiles(_drop_unproven(old, kept_from), "")

    def _find_newest(self, files: Sequence[ArchiveFile]) -> tuple[ArchiveFile | None, int | None]:
        """Find the newest segment that can be read, and its latest receivedAt."""
        newest = None
        for each in reversed(files):
            if each.kind in {FileKind.SEGMENT, FileKind.OPEN}:
                newest = newest or (each if each.kind is FileKind.SEGMENT else None)
                with suppress(OSError, ArchiveDamaged):
                    if (latest := self._read_latest(each)) is not None:
                        return (newest or each), latest
        return newest, None

    def _read_latest(self, file: ArchiveFile) -> int | None:
        """Return the latest receivedAt in a segment; None for a file that has none.

        Raises:
            ArchiveDamaged, OSError: it cannot be read.
        """
        if file.kind not in {FileKind.SEGMENT, FileKind.OPEN}:
            return None
        fd = os.open(self._folder / file.path, os.O_RDONLY)
        try:
            if file.kind is FileKind.OPEN:
                return read_latest_received(fd)
            footer = read_footer(fd)
        finally:
            os.close(fd)
        if footer is None:
            raise ArchiveDamaged("its footer is damaged")
        if len(footer.blocks) == 0:
            raise ArchiveDamaged("its footer names no block")
        return max(each.latest_ms for each in footer.blocks)

    def _delete(self, files: Iterable[ArchiveFile]) -> list[ArchiveFile]:
        """Unlink files, and the day folders that are empty then; return what is gone."""
        gone = []
        for each in files:
            try:
                failpoint("archive-retention-unlink")
                (self._folder / each.path).unlink(missing_ok=True)
            except OSError as error:
                self._alarm(
                    each.first, f"{self._folder / each.path} is expired, not deleted: {error}"
                )
                continue
            gone.append(each)
        for day in {each.day for each in gone}:
            # A deletion that a power cut undoes is below the floor, and is done again.
            with suppress(FsyncFailed):
                sync_folder(self._folder / day)
            with suppress(OSError):  # not empty: gap records stay
                (self._folder / day).rmdir()
        return gone

    def _alarm(self, first: Seq, what: str) -> None:
        if first not in self._failed:
            self._failed.add(first)
            self._alarms.append(what)


def _is_deletable(file: ArchiveFile) -> bool:
    return file.kind in {FileKind.SEGMENT, FileKind.QUARANTINE}


def _drop_unproven(old: list[ArchiveFile], kept_from: Seq) -> list[ArchiveFile]:
    """Leave out the last quarantine files: no usage that was received after them is old.

    They have no receivedAt, and the day of their folder is the word of one clock.
    """
    while old and old[-1].kind is FileKind.QUARANTINE and old[-1].last >= kept_from:
        old = old[:-1]
    return old


def _day_limit(seconds: float, days: int) -> str:
    return (date.fromisoformat(utc_day(seconds)) - timedelta(days=days)).isoformat()


def _describe_clock_skew(latest_ms: int, now: float) -> str:
    """Say that the newest usage and this machine's clock differ by too much, "" if they do not."""
    if abs(latest_ms / 1000 - now) <= MAX_CLOCK_SKEW_SECONDS:
        return ""
    return (
        f"retention deletes nothing: the newest usage was received at {_format_time(latest_ms)},"
        f" and this machine's clock says {_format_time(now * 1000)}. If no usage came for more"
        " than two days, the next one ends this. Otherwise correct the clock of this node or of"
        " the API's"
    )


def _describe_future_usage(file: ArchiveFile, latest_ms: int) -> str:
    return (
        f"retention stops before {file.path}: it holds a usage that was received in the future, at"
        f" {_format_time(latest_ms)}. An API pod's clock was wrong; the file is kept until that"
        " time"
    )


def _format_time(ms: float) -> str:
    try:
        return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{ms:.0f} ms after 1970"
