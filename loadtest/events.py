"""Events of a stack that may delay answers, from its files and logs: no process is disturbed.

Times are of the wall clock, because files and logs have only that one.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from loadtest.target import Event

LATENCY_THRESHOLD_MS = 2
"""Valkey's latency monitor records what takes this long."""
ROLL, REWRITE, FSYNC = "segment roll", "AOF rewrite", "AOF fsync"
WRITE, COMMAND = "AOF write", "slow command"

_DELAYS = {"aof-fsync-always": FSYNC, "aof-write": WRITE, "command": COMMAND}
"""The delays of the latency monitor that can hold up a commit. A fork is part of a rewrite."""
_rewrite = re.compile(
    r"^\d+:M (\d.{23}) \* Background (AOF rewrite finished|append only file rewriting started)",
    re.MULTILINE,
)


def list_rolls(archive: Path) -> Iterator[Event]:
    """Yield the roll of each finished segment: from the write of its index to its rename."""
    for index in archive.glob("p*/*/_usages-*[0-9].index"):
        segment = index.with_name(f"{index.stem.removeprefix('_')}.ndjson.zst")
        with suppress(FileNotFoundError):  # it is renamed after its index
            at = index.stat().st_mtime
            yield Event(ROLL, at, segment.stat().st_ctime - at)


def list_rewrites(log: str) -> Iterator[Event]:
    """Yield the finished rewrites of the AOF in a server's log."""
    began = 0.0
    for when, what in _rewrite.findall(log):
        at = datetime.strptime(when, "%d %b %Y %H:%M:%S.%f").timestamp()  # noqa: DTZ007 - local
        if what.endswith("started"):
            began = at
        elif began:
            yield Event(REWRITE, began, at - began)


def name_delay(kind: str) -> str | None:
    """Return the name of an event of the latency monitor; None if it cannot hold up a commit."""
    return _DELAYS.get(kind)
