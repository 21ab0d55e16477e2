"""The Idempotency-Keys of the last hour or so, beside the usages: FORMAT.md, "Keys".

    recover ──> append | begin | drop ──> close          read: at any time

Whoever prepares a Redis server gives it the keys back that are in here, so that a key outlives the
server. Each part is written by one process and never again after it: a torn line at its end was not
synced, so its usages are not in the archive yet, and Redis still has the key.
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
"""Bytes of a line: longer ones are damage, and are not read whole."""

_PART = re.compile(r"keys-p(\d{2,})-(\d{8,})-(\d{3,})\.log")


class LogPart(NamedTuple):
    """One file. Parts of a generation are in the order of their numbers."""

    generation: int
    number: int
    path: Path


class IdempotencyLog:
    """The keys of one partition, while this process owns its folder."""

    def __init__(self, folder: Path, partition: int, parts: Sequence[LogPart]) -> None:
        """Take these files. Use `recover`."""
        self._folder = folder / FOLDER_NAME
        self._partition = partition
        self._open: int | None = None
        self._size = 0
        self.parts = list(parts)
        self.generation = max((each.generation for each in self.parts), default=0)
        """The one that new keys belong to. Only grows."""

    @classmethod
    def recover(
        cls, folder: Path, partition: int, highest: Seq, alarms: list[str]
    ) -> "IdempotencyLog":
        """Take the files of a partition's folder, and delete the parts of which nothing counts.

        `highest` is the largest seq that the archive is known to have held. What cannot be read
        is an alarm, and no reason not to archive.

        A process that dies between a key's sync and the usages' leaves a part with keys that
        Redis still has, and the next one writes them again: one that dies over and over must not
        fill the volume. The newest part stays in any case: it tells the generation.
        """
        parts: list[LogPart] = []
        try:
            parts = list_parts(folder, partition)
        except OSError as error:
            alarms.append(f"{folder / FOLDER_NAME}: {os.strerror(error.errno or 0)}")
        for part in parts[:-1]:
            try:
                if _first_seq(part) > highest:
                    part.path.unlink()
                    parts.remove(part)
            except OSError as error:
                alarms.append(f"{part.path}: {os.strerror(error.errno or 0)}")
        return cls(folder, partition, parts)

    @property
    def is_empty(self) -> bool:
        """Whether there is no key in any file."""
        return not any(_file_size(each) for each in self.parts)

    def append(self, records: Sequence[IdempotencyRecord]) -> None:
        """Put keys on disk. Their usages may be archived when this returns, and not before.

        Raises:
            ArchiveFull: nothing was taken; the same append works when there is space.
            FsyncFailed: what the disk holds is unknown; the process must exit.
        """
        with translate_full_volume(self._folder):
            if self._open is None:
                self._begin_part()
            assert self._open is not None  # noqa: S101 - made above
            data = b"".join(map(_render_line, records))
            # What a full volume left of an earlier try is written over.
            write_at(self._open, data, self._size)
            failpoint("archive-keys-after-write")
            sync_file(self._open, str(self.parts[-1].path))
        self._size += len(data)

    def begin_generation(self, generation: int) -> None:
        """Let new keys belong to a later generation, on disk.

        Raises:
            ArchiveFull, FsyncFailed: as append.
        """
        with translate_full_volume(self._folder):
            self.close()
            self.generation = generation
            self._begin_part()

    def drop_generations(self, below: int) -> None:
        """Delete the files of generations whose time is over."""
        old = [each for each in self.parts if each.generation < below]
        for each in old:
            each.path.unlink(missing_ok=True)
        self.parts = [each for each in self.parts if each not in old]
        if old:
            sync_folder(self._folder)

    def close(self) -> None:
        """Close the part that is open: another process or generation begins one of its own."""
        if self._open is not None:
            os.close(self._open)
            self._open = None

    def _begin_part(self) -> None:
        make_folder(self._folder)
        numbers = [each.number for each in self.parts if each.generation == self.generation]
        for number in count(1 + max(numbers, default=0)):
            name = f"keys-p{self._partition:02d}-{self.generation:08d}-{number:03d}.log"
            part = LogPart(self.generation, number, self._folder / name)
            # One that exists is another process's, or could not be listed.
            with suppress(FileExistsError):
                self._open, self._size = create_file(part.path), 0
                self.parts.append(part)
                return


def read_part(part: LogPart) -> Iterator[IdempotencyRecord | None]:
    """Read a part's keys, one after the other; None is a line that is damaged.

    A line without its end, the last one, is torn and passed over.

    Raises:
        OSError: the file cannot be read.
    """
    with part.path.open("rb") as file:
        whole = True
        while line := file.readline(MAX_LINE_BYTES):
            if not line.endswith(b"\n"):
                if len(line) < MAX_LINE_BYTES:
                    return
                whole = False
                continue
            yield _parse_line(line) if whole else None
            whole = True


def _render_line(key: IdempotencyRecord) -> bytes:
    text = b"%d %d %d %b %b" % (*key[:3], key.key_digest.encode(), key.body_digest.encode())
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


def _first_seq(part: LogPart) -> Seq:
    """Return the seq of the first whole line; beyond all when there is none."""
    return next((each.last_seq for each in read_part(part) if each), Seq(1 << 62))


def _file_size(part: LogPart) -> int:
    with suppress(OSError):
        return part.path.stat().st_size
    return 0


def list_parts(folder: Path, partition: int) -> list[LogPart]:
    """List the files of a partition's folder, the oldest first."""
    found = []
    with suppress(FileNotFoundError):
        for path in (folder / FOLDER_NAME).iterdir():
            match = _PART.fullmatch(path.name)
            if match and int(match[1]) == partition:
                found.append(LogPart(int(match[2]), int(match[3]), path))
    return sorted(found)
