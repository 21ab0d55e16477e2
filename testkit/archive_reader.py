"""Read an archive folder with zstandard and json alone.

It does not use the archive's own reader, so an error there cannot hide an error of the writer. It
uses only facts of FORMAT.md: the file names, that segments are zstd frames of JSON lines, and the
JSON of gap and quarantine records. Do not read between a flusher's crash and its recovery: then
two files can hold the same lines.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import zstandard

from testkit.history import digest

NAME = re.compile(r"(usages|gap|quarantine)-p(\d+)-\d+(?:-\d+)?((?:-open)?\..+)")

CHUNK = 1 << 16


class Line(NamedTuple):
    """One archived usage."""

    id: int
    digest: bytes
    file: str
    writer: str = ""
    """In its stamp, "" without a stamp."""


class Span(NamedTuple):
    """Seqs without lines: skipped by a gap record, or put into quarantine."""

    first: int
    last: int
    file: str


@dataclass
class Partition:
    """The files of one partition, segments in the order of their first seq."""

    lines: list[Line] = field(default_factory=list)
    gaps: list[Span] = field(default_factory=list)
    quarantined: list[Span] = field(default_factory=list)
    strides: list[tuple[int, int]] = field(default_factory=list)
    """Each stride after its first seq, as partition.json says; empty: the number of partitions."""

    def find_seq(self, usage_id: int, number: int, partitions: int) -> int | None:
        """Return the seq of an id, None if this partition, with this number, cannot have it."""
        end = 1 << 53
        for first, stride in reversed(self.strides or [(1, partitions)]):
            if (usage_id - 1) % stride == number and first <= (usage_id - 1) // stride + 1 < end:
                return (usage_id - 1) // stride + 1
            end = first
        return None


@dataclass
class Archive:
    """The files of all partitions below one folder."""

    partitions: dict[int, Partition] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    """The name of each unreadable file, with the reason."""
    torn: list[str] = field(default_factory=list)
    """Open segments with a torn tail. This is not damage: the flusher truncates it at its start."""

    def partition(self, number: int) -> Partition:
        """Return one partition, empty if it has no files."""
        return self.partitions.setdefault(number, Partition())


def read_archive(folder: Path) -> Archive:
    """Read every file of the archive below a folder, including open segments."""
    archive = Archive()
    # Names sort by seq.
    for path in sorted(folder.rglob("*"), key=lambda path: path.name):
        if match := NAME.fullmatch(path.name):
            _read_file(archive, archive.partition(int(match[2])), path, (match[1], match[3]))
    for path in folder.rglob("partition.json"):
        members = json.loads(path.read_bytes())
        pairs = members.get("strides", "").split()[1:]
        archive.partition(members["partition"]).strides = [
            (int(first), int(stride))
            for first, _, stride in (pair.partition(":") for pair in pairs)
        ]
    return archive


def _read_file(
    archive: Archive, partition: Partition, path: Path, stem_and_end: tuple[str, str]
) -> None:
    match stem_and_end:
        case "usages", ".ndjson.zst":
            archive.damaged += _read_segment(partition, path)
        case "usages", ".ndjson.zst.open" | "-open.ndjson.zst":
            archive.torn += _read_segment(partition, path)
        case "usages", end if end.startswith(".ndjson.zst.damaged"):
            archive.damaged.append(f"{path.name}: set aside")
        case "gap", ".json":
            partition.gaps.append(_read_span(path))
        case "quarantine", ".bin":
            partition.quarantined.append(_read_span(path))


def _read_segment(partition: Partition, path: Path) -> list[str]:
    """Add a segment's lines up to its end or its first damage, and return the damage."""
    try:
        for content in _read_frames(path):
            for line in content.splitlines():
                members = json.loads(line)
                writer = members.get("writer", "")
                usage = digest(members["usage"])
                partition.lines.append(Line(members["id"], usage, path.name, writer))
    except (zstandard.ZstdError, ValueError, KeyError, TypeError) as error:
        return [f"{path.name}: {error}"]
    return []


def _read_span(path: Path) -> Span:
    """Read a gap record, or the line of JSON at the start of a quarantine file."""
    with path.open("rb") as file:
        members = json.loads(file.readline() if path.suffix == ".bin" else file.read())
    return Span(members["from"], members["to"], path.name)


def _read_frames(path: Path) -> Iterator[bytes]:
    """Yield the content of each zstd frame. Skippable frames, with headers, have no content.

    Raises:
        ZstdError, ValueError: the file has bytes that are not a frame, or ends within a frame.
    """
    decompressor = zstandard.ZstdDecompressor()
    with path.open("rb") as file:
        frame, content, rest = None, b"", b""
        while rest := rest or file.read(CHUNK):
            frame = frame or decompressor.decompressobj()
            content += frame.decompress(rest)
            rest = frame.unused_data
            if frame.eof:
                if content[-1:] not in {b"", b"\n"}:
                    raise ValueError("a frame ends within a line")
                yield content
                frame, content = None, b""
    if frame:
        raise ValueError("it ends within a frame")
