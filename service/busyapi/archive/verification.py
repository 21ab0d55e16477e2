"""The result of the last scheduled verification of a partition.

    <root>/p00/verified.json       {"ended": "2026-11-23T12:30:00Z", "problems": 0}

It survives a restart of the flusher, so verifications keep their interval and alerts their state.
Nothing else depends on it: without the file, or with an unreadable one, the flusher verifies again.
"""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from busyapi.archive import paths
from busyapi.archive.fsync import translate_full_volume, write_small_file
from busyapi.errors import ArchiveFull, FsyncFailed


class Verification(NamedTuple):
    """When a verification ended, and what it found."""

    ended: float
    """Seconds since 1970."""
    problems: int


def read_verification(folder: Path) -> Verification | None:
    """Return the last result; None if there is none that can be read."""
    try:
        members = json.loads((folder / paths.VERIFIED_NAME).read_bytes())
        ended = datetime.fromisoformat(members["ended"])
        return Verification(ended.timestamp(), int(members["problems"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None


def write_verification(folder: Path, verification: Verification) -> None:
    """Keep a result. If that fails, the flusher verifies again after its next start."""
    ended = datetime.fromtimestamp(int(verification.ended), UTC)
    members = {"ended": f"{ended:%Y-%m-%dT%H:%M:%SZ}", "problems": verification.problems}
    data = json.dumps(members).encode() + b"\n"
    with suppress(OSError, ArchiveFull, FsyncFailed), translate_full_volume(folder):
        write_small_file(folder / paths.VERIFIED_NAME, data)
