"""The log of the Idempotency-Keys that may still be known: FORMAT.md, "Keys".

    recover ──> append | begin_generation | drop_generations ──> close       read_part: at any time

The flusher restores these keys to a new Redis server, so that a key outlives the server. One
process writes each part, and no other process writes it later. A torn line at its end was not
synced, so its usages are not archived yet, and Redis still has the key.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from busyapi.archive.fsync import (
    create_file,
    make_folder,
    sync_file,
    sync_folder,
    translate_full_volume,
    write_at,
)
from busyapi.failpoints import failpoint
from busyapi.idempotency import IdempotencyRecord
from busyapi.ids import Seq

FOLDER_NAME = "keys"
MAX_LINE_BYTES = 256
"""The longest line. A longer one is damage, and is not read into memory as a whole."""

_PART = re.compile(r"keys-p(\d{2,})-(\d{8,})-(\d{3,})\.log")


class LogPart(NamedTuple):
    """One file. The parts of a generation are ordered by their numbers."""

    generation: int
    number: int
    path: Path


class IdempotencyLog:
    """The keys of one partition, while this process owns its folder."""

    def __init__(self, folder: Path, partition: int, parts: Sequence[LogPart]) -> None:
        """Use these files. Call `recover` instead."""
        self._folder = folder / FOLDER_NAME
        self._partition = partition
        self._fd: int | None = None
        self._size = 0
        self.parts = list(parts)
        self.generation = max((part.generation for part in self.parts), default=0)
        """The generation of new keys. It only grows."""

    @classmethod
    def recover(
        cls, folder: Path, partition: int, highest: Seq, damage_reports: list[str]
    ) -> "IdempotencyLog":
        """Open the log in a partition's folder, and delete the parts in which no key counts.

        `highest` is the largest seq that the archive ever held, as far as is known. A part that
        cannot be read is reported as damage, and does not stop archiving.

        A process that dies between the sync of keys and the sync of their usages leaves a part
        with keys that Redis still has. The next process writes them again. A flusher that dies
        again and again must not fill the volume with such parts. The newest part always stays: it
        gives the generation.
        """
        parts: list[LogPart] = []
        try:
            parts = list_parts(folder, partition)
        except OSError as error:
            damage_reports.append(f"{folder / FOLDER_NAME}: {os.strerror(error.errno or 0)}")
        for part in parts[:-1]:
            try:
                if _last_seq_of_first_line(part) > highest:
                    part.path.unlink()
                    parts.remove(part)
            except OSError as error:
                damage_reports.append(f"{part.path}: {os.strerror(error.errno or 0)}")
        return cls(folder, partition, parts)

    @property
    def is_empty(self) -> bool:
        """Return whether no file holds a key."""
        return not any(_file_size(part) for part in self.parts)

    def append(self, records: Sequence[IdempotencyRecord]) -> None:
        """Put keys on disk. The caller archives their usages only after this returns.

        Raises:
            ArchiveFull: nothing was written; the same append works when there is space.
            FsyncFailed: what the disk holds is unknown; the process must exit.
        """
        with translate_full_volume(self._folder):
            if self._fd is None:
                self._begin_part()
            assert self._fd is not None  # noqa: S101 - made above
            data = b"".join(map(_render_line, records))
            # This overwrites what an earlier append left when the volume became full.
            write_at(self._fd, data, self._size)
            failpoint("archive-keys-after-write")
            sync_file(self._fd, str(self.parts[-1].path))
        self._size += len(data)

    def begin_generation(self, generation: int) -> None:
        """Begin a later generation, on disk: new keys belong to it.

        Raises:
            ArchiveFull, FsyncFailed: as append.
        """
        with translate_full_volume(self._folder):
            self.close()
            self.generation = generation
            self._begin_part()

    def drop_generations(self, below: int) -> None:
        """Delete the files of the generations below this one."""
        old = [part for part in self.parts if part.generation < below]
        for part in old:
            part.path.unlink(missing_ok=True)
        self.parts = [part for part in self.parts if part not in old]
        if old:
            sync_folder(self._folder)

    def close(self) -> None:
        """Close the open part. Another process or generation begins a part of its own."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _begin_part(self) -> None:
        make_folder(self._folder)
        numbers = [part.number for part in self.parts if part.generation == self.generation]
        for number in count(1 + max(numbers, default=0)):
            name = f"keys-p{self._partition:02d}-{self.generation:08d}-{number:03d}.log"
            part = LogPart(self.generation, number, self._folder / name)
            # An existing part belongs to another process, or could not be listed.
            with suppress(FileExistsError):
                self._fd, self._size = create_file(part.path), 0
                self.parts.append(part)
                return


def read_part(part: LogPart) -> Iterator[IdempotencyRecord | None]:
    """Yield the keys of a part, and None for each damaged line.

    A last line without newline is torn, and is skipped.

    Raises:
        OSError: the file cannot be read.
    """
    with part.path.open("rb") as file:
        at_line_start = True
        while line := file.readline(MAX_LINE_BYTES):
            if not line.endswith(b"\n"):
                if len(line) < MAX_LINE_BYTES:
                    return
                at_line_start = False
                continue
            yield _parse_line(line) if at_line_start else None
            at_line_start = True


def find_last_seq(part: LogPart, known: Seq) -> Seq:
    """Return the largest seq of the keys of a part, or `known` if none is larger.

    Other lines are not parsed: a failover waits for this.

    Raises:
        OSError: the file cannot be read.
    """
    with part.path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            words = line.split(b" ", 2)
            is_larger = len(words) > 1 and words[1].isdigit() and int(words[1]) > known
            if is_larger and line.endswith(b"\n") and (record := _parse_line(line)):
                known = record.last_seq
    return known


def _render_line(record: IdempotencyRecord) -> bytes:
    digests = record.key_digest.encode(), record.body_digest.encode()
    text = b"%d %d %d %b %b" % (*record[:3], *digests)
    return b"%08x %b\n" % (crc32(text), text)


def _parse_line(line: bytes) -> IdempotencyRecord | None:
    checksum, _, text = line[:-1].partition(b" ")
    try:
        if int(checksum, 16) != crc32(text):
            return None
        last, usages, received, digest, body = text.decode().split(" ")
        return IdempotencyRecord(Seq(int(last)), int(usages), int(received), digest, body)
    except ValueError:
        return None


def _last_seq_of_first_line(part: LogPart) -> Seq:
    """Return the last seq of the first intact line; without one, a seq beyond all others."""
    return next((record.last_seq for record in read_part(part) if record), Seq(1 << 62))


def _file_size(part: LogPart) -> int:
    with suppress(OSError):
        return part.path.stat().st_size
    return 0


def list_parts(folder: Path, partition: int) -> list[LogPart]:
    """List the parts in a partition's folder, oldest first."""
    parts = []
    with suppress(FileNotFoundError):
        for path in (folder / FOLDER_NAME).iterdir():
            match = _PART.fullmatch(path.name)
            if match and int(match[1]) == partition:
                parts.append(LogPart(int(match[2]), int(match[3]), path))
    return sorted(parts)
