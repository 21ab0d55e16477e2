"""Which files are older than they are kept, and their end."""

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path

from busyapi.archive.durable import sync_folder
from busyapi.archive.names import File, Kind, day_of
from busyapi.archive.reader import read_footer
from busyapi.failpoints import failpoint
from busyapi.ids import Seq


def expired(folder: Path, files: Sequence[File], kept_from: Seq, days: int) -> list[File]:
    """List the oldest segments and quarantine files opened more than this many days ago.

    Gap records stay: they hold no usage, and say which ids never were one. So do files set aside,
    which are a person's to delete.
    """
    limit = (date.fromisoformat(day_of()) - timedelta(days=days)).isoformat()
    old = []
    for each in files:
        if each.kind in {Kind.GAP, Kind.DAMAGED}:
            continue
        # Below the floor: we died after raising it, before the file was unlinked.
        if each.last >= kept_from and not (
            each.day < limit and _received_before(folder, each, limit)
        ):
            break
        old.append(each)
    return old


def _received_before(folder: Path, file: File, limit: str) -> bool:
    """Tell whether all of a segment was received before a day.

    The folder's day is by this machine's clock. If that once stood far in the past, the usages'
    own times, which other machines stamped, keep a young segment from being deleted.
    """
    if file.kind is not Kind.SEGMENT:
        return True
    fd = os.open(folder / file.path, os.O_RDONLY)
    try:
        footer = read_footer(fd)
    finally:
        os.close(fd)
    return footer is None or day_of(max(each.latest_ms for each in footer.blocks) / 1000) < limit


def delete(folder: Path, files: Sequence[File]) -> None:
    """Unlink files, and the day folders that are empty then."""
    for each in files:
        failpoint("archive-retention-unlink")
        (folder / each.path).unlink(missing_ok=True)
    for day in {each.day for each in files}:
        sync_folder(folder / day)
        with suppress(OSError):  # not empty: gap records stay
            (folder / day).rmdir()
