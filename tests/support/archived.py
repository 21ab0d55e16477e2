"""What an archive folder holds, read with zstandard and json alone.

This is on purpose not the archive's own reader: an error there must not hide an error of the
writer. It knows only what any reader of the files would: their names, that they are zstd frames
with JSON lines, and what the JSON of a gap record says.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import zstandard

from tests.support.history import digest

SEGMENT = re.compile(r"usages-p(\d+)-(\d+)(?:-(\d+))?\.ndjson\.zst(\.open)?")
GAP = re.compile(r"gap-.*\.json")

CHUNK = 1 << 16


class Line(NamedTuple):
    """One archived usage."""

    id: int
    digest: bytes
    file: str


class Gap(NamedTuple):
    """Seqs that a record says were skipped."""

    first: int
    last: int
    file: str


@dataclass
class Partition:
    """The files of one partition, segments in the order of their first seq."""

    lines: list[Line] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


@dataclass
class Archive:
    """The files of all partitions below one folder."""

    partitions: dict[int, Partition] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    """What could not be read, with the file's name."""
    torn: list[str] = field(default_factory=list)
    """Open segments with a torn tail: the flusher cuts it off when it starts, so no damage."""

    def partition(self, number: int) -> Partition:
        """Return one partition, empty if it has no files."""
        return self.partitions.setdefault(number, Partition())


def read_archive(folder: Path) -> Archive:
    """Read every segment, the open ones included, and every gap record below a folder."""
    archive = Archive()
    segments = []
    for path in folder.rglob("*"):
        if match := SEGMENT.fullmatch(path.name):
            partition, first, last, is_open = match.groups()
            segments.append((int(partition), int(first), int(last or 0), bool(is_open), path))
        elif GAP.fullmatch(path.name):
            _read_gap(archive, path)
    for partition, _, _, is_open, path in sorted(segments):
        _read_segment(archive, archive.partition(partition), path, is_open=is_open)
    return archive


def _read_segment(archive: Archive, partition: Partition, path: Path, *, is_open: bool) -> None:
    try:
        for content in _frames(path):
            for line in content.splitlines():
                said = json.loads(line)
                partition.lines.append(Line(said["id"], digest(said["usage"]), path.name))
    except (zstandard.ZstdError, ValueError, KeyError, TypeError) as error:
        (archive.torn if is_open else archive.damaged).append(f"{path.name}: {error}")


def _frames(path: Path) -> Iterator[bytes]:
    """Give the content of each zstd frame; a skippable one, with the archive's notes, has none.

    Raises:
        ZstdError, ValueError: the file holds something else, or ends within a frame.
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


def _read_gap(archive: Archive, path: Path) -> None:
    said = json.loads(path.read_bytes())
    partition = int(re.findall(r"p(\d+)", str(path))[-1])
    archive.partition(partition).gaps.append(Gap(said["from"], said["to"], path.name))
