"""Which files of a trail are expired.

A deletion cannot be undone, so a file's age is counted from this machine's time or from the time
of the last record, whichever is older: a clock that jumps ahead deletes nothing at first. The
newest file is never deleted.
"""

import time
from collections.abc import Sequence
from datetime import date, timedelta

from busyapi.archive.paths import utc_day
from busyapi.audit.files import AuditFile
from busyapi.audit.head import Head
from busyapi.audit.position import Position
from busyapi.audit.scan import read_begin


def find_expired(
    files: Sequence[AuditFile], position: Position, days: int
) -> tuple[list[AuditFile], Head | None]:
    """Return the files that are older than `days`, and the last record in them.

    A file whose successor cannot be read stays, because its last record is not known.
    """
    if position.seconds is None:
        return [], None
    today = date.fromisoformat(utc_day(min(time.time(), position.seconds)))
    limit = (today - timedelta(days=days)).isoformat()
    old = [file for file in files[:-1] if file.day < limit]
    for count in range(len(old), 0, -1):
        begin = read_begin(files[count].path)
        if begin and begin.members.get("after", {}).get("file") == files[count - 1].name:
            return old[:count], Head(begin.seq - 1, str(begin.members["previous"]))
    return [], None
