r"""A process that makes filters of patients for a flusher: in each finished segment that has none.

A process of its own with the lowest priority, because a segment takes seconds of CPU, which must
delay neither a flush nor a page. It ends when its stdin does, so it does not outlive its flusher.
It may be killed at any time: the next one writes the same temporary file again.

Its input is a line with the paths of the segments that it leaves out. For each other segment it
prints a line before it reads it, and one more when it has a filter, or gets none:

    {"path":"2026-11-23/…"}\n{"path":"2026-11-23/…","done":true}\n
    {"path":"2026-11-22/…"}\n{"path":"2026-11-22/…","error":"… is damaged"}\n
"""

import errno
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from busyapi.archive import paths
from busyapi.archive.convert import (
    LOCK_POLL_SECONDS,
    Conversion,
    complete_index,
    exclude_other_conversions,
)
from busyapi.archive.identity import read_identity
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.errors import ArchiveDamaged, ArchiveError, ArchiveLocked, FsyncFailed

MIN_FREE_BYTES = 1 << 26
"""Below this no filter is made: what is left is for usages. A filter has at most a few MiB."""
_VOLUME_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
PAUSE_SECONDS = 3 * LOCK_POLL_SECONDS
"""For this time after each segment, `busyapi archive upgrade` can take the lock."""

Report = Callable[[dict[str, Any]], None]


def main(root: str, partition: str) -> None:
    """Make the filters."""
    left = frozenset(json.loads(sys.stdin.buffer.readline()))
    Thread(target=_end_with_stdin, daemon=True).start()
    make_filters(Path(root), int(partition), left, _print)


def make_filters(root: Path, partition: int, left: frozenset[str], report: Report) -> None:
    """Make the filters of a partition, that of the newest segment first.

    It ends early if the volume is nearly full or read-only, or if another conversion runs.
    """
    folder = paths.partition_folder(root, partition)
    files = paths.list_files(folder, partition).files
    for file in reversed(files):
        if file.kind is not FileKind.SEGMENT or file.path in left:
            continue
        if _measure_free_bytes(folder) < MIN_FREE_BYTES:
            return
        report({"path": file.path})
        try:
            with exclude_other_conversions(folder):
                done = _complete(folder, file)
        except ArchiveLocked:
            return
        except (ArchiveError, OSError) as error:
            if _is_of_volume(error):
                return
            why = str(error) if file.path in str(error) else f"{file.path}: {error}"
            report({"path": file.path, "error": why})
            continue
        if done is not None:
            report({"path": file.path, "done": True})
        if done is Conversion.INDEXED:
            time.sleep(PAUSE_SECONDS)


def _complete(folder: Path, file: ArchiveFile) -> Conversion | None:
    # Read it for each segment: the newest ones may have other strides than when this began.
    identity = read_identity(folder)
    if identity is None:
        raise ArchiveDamaged(f"{folder / paths.IDENTITY_NAME} does not exist any more")
    try:
        return complete_index(folder, file, identity)
    except FileNotFoundError:
        # Retention deleted the segment, or recovery the temporary file: the next one sees.
        return None


def _is_of_volume(error: ArchiveError | OSError) -> bool:
    """Return whether each segment of the volume would fail. An fsync may be what finds it full."""
    cause = error.__cause__ if isinstance(error, FsyncFailed) else error
    return isinstance(cause, OSError) and cause.errno in _VOLUME_ERRNOS


def _measure_free_bytes(folder: Path) -> int:
    volume = os.statvfs(folder)
    return volume.f_bavail * volume.f_frsize


def _print(line: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(line).encode() + b"\n")
    sys.stdout.buffer.flush()


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
