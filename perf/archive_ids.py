"""Count the lines and ids in an archive's files, independently of busyapi.

Like the tests' reader, it only knows file names, zstd and the form of a line. It keeps no lines, so
that it counts a minute of batches, ten million usages, in seconds.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

NAME = re.compile(r"usages-p\d+-\d+(-\d+|-open)?\.ndjson\.zst(\.open)?")
ID = re.compile(rb'^\{"id":(\d+),', re.MULTILINE)
CHUNK_BYTES = 1 << 22


@dataclass
class Archived:
    """The lines of an archive with one partition."""

    lines: int = 0
    last: int = 0
    """The id of the last line."""
    fault: str = ""
    """The first place where the ids do not continue 1, 2, 3, …; "" if they do."""

    def add(self, text: bytes, file: str) -> None:
        """Count complete lines."""
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


def count_lines(folder: Path) -> Archived:
    """Count the lines of the files below a folder. No flusher may write there."""
    archived = Archived()
    # File names sort as their seqs do, with the open file last.
    files = [path for path in folder.rglob("*.zst*") if NAME.fullmatch(path.name)]
    for path in sorted(files, key=lambda file: file.name):
        for lines in _complete_lines(path):
            archived.add(lines, path.name)
    return archived


def _complete_lines(path: Path) -> Iterator[bytes]:
    rest = b""
    # The decompressor skips skippable frames, which contain the archive's notes.
    with (
        path.open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader,
    ):
        while chunk := reader.read(CHUNK_BYTES):
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            yield lines + newline
    if rest:
        yield rest + b"\n"
