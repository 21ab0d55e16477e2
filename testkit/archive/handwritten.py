"""Archives and histories written by hand, correct or not, for tests of the checker."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard

from testkit.history import History, Outcome, Request, digest


def make_usage(name: str) -> dict[str, str]:
    """Return a usage that differs from that of any other name."""
    return {"patientId": "100", "medication": "Albuterol", "marker": name}


def make_line(usage_id: int, name: str, writer: str = "") -> dict[str, Any]:
    """Return one archived line."""
    stamp = {"writer": writer} if writer else {}
    usage = make_usage(name)
    return {"id": usage_id, "receivedAt": "2026-11-23T19:12:00.123Z", "usage": usage, **stamp}


def make_segment(lines: Sequence[dict[str, Any]]) -> bytes:
    """Return a segment: data frames of two lines, each after a skippable one, and a footer."""
    rendered = [json.dumps(line).encode() + b"\n" for line in lines]
    compress = zstandard.ZstdCompressor().compress
    frames = [compress(b"".join(rendered[at : at + 2])) for at in range(0, len(rendered), 2)]
    return b"".join(
        make_skippable_frame(b"frame") + frame for frame in frames
    ) + make_skippable_frame(b"footer")


def make_skippable_frame(content: bytes) -> bytes:
    """Return a skippable frame."""
    return struct.pack("<II", 0x184D2A50, len(content)) + content


def write_segment(
    folder: Path,
    lines: Sequence[dict[str, Any]],
    *,
    partition: int = 0,
    partitions: int = 1,
    day: str = "2026-11-23",
) -> Path:
    """Write a finished segment. Its name has the seqs of its first and last line."""
    first, last = ((line["id"] - 1) // partitions + 1 for line in (lines[0], lines[-1]))
    name = f"usages-p{partition:02}-{first:016}-{last:016}.ndjson.zst"
    return write_file(folder / f"p{partition:02}" / day / name, make_segment(lines))


def write_gap(folder: Path, first: int, last: int, *, partition: int = 0) -> Path:
    """Write a gap record."""
    name = f"gap-p{partition:02}-{first:016}-{last:016}.json"
    record = {"from": first, "to": last, "why": "a test says so"}
    content = json.dumps(record, indent=2).encode()
    return write_file(folder / f"p{partition:02}" / "2026-11-23" / name, content)


def write_quarantine(folder: Path, first: int, last: int) -> Path:
    """Write a quarantine file with an unreadable entry."""
    name = f"quarantine-p00-{first:016}-{last:016}.bin"
    content = json.dumps({"from": first, "to": last}).encode() + b"\nno\nsuch\nentry"
    return write_file(folder / "p00" / "2026-11-23" / name, content)


def write_file(path: Path, content: bytes) -> Path:
    """Write a file, and create its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def add_request(
    history: History,
    outcome: Outcome,
    names: Sequence[str],
    ids: Sequence[int] = (),
    *,
    at: float = 0.0,
    until: float | None = None,
    writer: str = "",
) -> None:
    """Add a request that was sent at `at` and answered at `until`."""
    history.add(
        Request(
            digests=tuple(digest(make_usage(name)) for name in names),
            outcome=outcome,
            ids=tuple(ids),
            sent=at,
            answered=at if until is None else until,
            writer=writer,
        )
    )
