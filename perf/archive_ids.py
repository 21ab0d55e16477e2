"""Which ids an archive folder holds: counted from its files, not from what anybody says.

Like the tests' own reader it knows only the names, zstd and the shape of a line. It keeps no
lines, so that a minute of batches, ten million usages, is counted in seconds.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

NAME = re.compile(r"usages-p\d+-\d+(-\d+)?\.ndjson\.zst(\.open)?")
ID = re.compile(rb'^\{"id":(\d+),', re.MULTILINE)
CHUNK = 1 << 22


@dataclass
class Archived:
    """The lines of an archive with one partition."""

    lines: int = 0
    last: int = 0
    """The id of the last line."""
    fault: str = ""
    """The first place where the ids are not 1, 2, 3, …; "" if there is none."""

    def add(self, text: bytes, file: str) -> None:
        """Count whole lines."""
        ids = [int(match) for match in ID.findall(text)]
        lines = text.count(b"\n")
        if not self.fault:
            self.fault = self._fault(ids, lines, file)
        self.lines += lines
        self.last = ids[-1] if ids else self.last

    def _fault(self, ids: list[int], lines: int, file: str) -> str:
        if len(ids) != lines:
            return f"{file}: {lines - len(ids)} lines without an id"
        if ids == list(range(self.last + 1, self.last + 1 + lines)):
            return ""
        expected = self.last
        for number in ids:
            expected += 1
            if number != expected:
                break
        return f"{file}: id {number} where {expected} should be"


def count(folder: Path) -> Archived:
    """Count what the files below a folder hold. No flusher may be writing there."""
    archived = Archived()
    # Names sort as their seqs do, the open one last.
    files = [path for path in folder.rglob("*.zst*") if NAME.fullmatch(path.name)]
    for path in sorted(files, key=lambda file: file.name):
        for lines in _whole_lines(path):
            archived.add(lines, path.name)
    return archived


def _whole_lines(path: Path) -> Iterator[bytes]:
    rest = b""
    # Skippable frames, with the archive's notes, are passed over.
    with (
        path.open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader,
    ):
        while chunk := reader.read(CHUNK):
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            yield lines + newline
    if rest:
        yield rest + b"\n"
