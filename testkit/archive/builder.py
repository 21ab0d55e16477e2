"""Build archives for tests, and read them with a second reader.

The second reader follows FORMAT.md with struct, zlib and zstandard alone. It shares no code with
the writer.
"""

import errno
import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from busyapi.archive import high_water, identity, paths
from busyapi.archive.config import ArchiveConfig
from busyapi.archive.format import UsageBatch, render_lines
from busyapi.archive.writer import PartitionWriter
from busyapi.ids import Seq

FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
RECEIVED_MS = 1_763_925_120_123
"""2025-11-23T19:12:00.123Z."""
DAY_MS = 86_400_000
chosen_format = 2
"""The format in which archives are written here, unless a test sets it."""


def now_ms() -> int:
    """Return the receive time of a usage that is posted now."""
    return int(time.time() * 1000)


def make_usage(seq: int) -> bytes:
    """Return a usage that differs from that of any other seq."""
    return b'{"patientId":"%d","timestamp":%d,"medication":"Albuterol"}' % (seq % 7, seq)


def make_batch(first: int, count: int = 1, received_ms: int = RECEIVED_MS) -> UsageBatch:
    """Return a batch of `count` usages that starts at this seq."""
    usages = [make_usage(seq) for seq in range(first, first + count)]
    return join_usages(first, usages, received_ms)


def join_usages(first: int, usages: Sequence[bytes], received_ms: int = RECEIVED_MS) -> UsageBatch:
    """Return a batch of these usages that starts at this seq."""
    last = first + len(usages) - 1
    return UsageBatch(Seq(first), Seq(last), received_ms, b"\n".join(usages))


def render_batches(batches: Sequence[UsageBatch], partition: int, stride: int) -> bytes:
    """Return the lines of batches, as a block has them."""
    return b"".join(render_lines(batches, partition, stride))


def recover_writer(
    root: Path, partition: int = 0, partitions: int = 1, **options: Any
) -> PartitionWriter:
    """Recover a partition with settings that never start a new segment."""
    settings: dict[str, Any] = {
        "bound": 1000,
        "segment_bytes": 1 << 30,
        "segment_age": 1e9,
        "retention_days": 0,
        "format": chosen_format,
    }
    return PartitionWriter.recover(
        ArchiveConfig(root, partition, partitions, **(settings | options))
    )


def abandon_writer(writer: PartitionWriter) -> None:
    """Release the lock and do nothing else, as if the process was killed."""
    writer._lookup.segment = None
    writer.close()


def write_blocks(root: Path, *blocks: int, partition: int = 0, partitions: int = 1) -> Path:
    """Append blocks with these numbers of usages, abandon the writer, and return the segment."""
    writer = recover_writer(root, partition, partitions)
    for count in blocks:
        writer.append([make_batch(writer.cursor + 1, count)])
    abandon_writer(writer)
    return find_open_segment(root)


def set_high_water(root: Path, seq: int | None) -> None:
    """Set the high-water mark to a seq. None removes it, as in a folder of 0.2.0."""
    partition = identity.read_identity(root / "p00")
    assert partition
    (root / "p00" / paths.HIGH_WATER_NAME).unlink()
    if seq is not None:
        high_water.HighWaterMark.create(root / "p00", partition.archive_id, Seq(seq)).close()


def change_identity(path: Path, **members: object) -> None:
    """Change members of a partition.json without its checksum, as an operator would."""
    content = json.loads(path.read_text()) | members
    content.pop("crc", None)
    path.write_text(json.dumps(content))


def write_as_0_2_0(path: Path) -> None:
    """Remove the members of a partition.json that 0.2.0 does not write."""
    content = json.loads(path.read_text())
    for name in ("home", "prefix", "crc"):
        content.pop(name, None)
    path.write_text(json.dumps(content, indent=2) + "\n")


def find_segments(root: Path) -> list[Path]:
    """Return the finished segments."""
    return sorted(path for path in root.rglob("*.ndjson.zst") if not is_open_segment(path))


def find_open_segment(root: Path) -> Path:
    """Return the only open segment."""
    (path,) = find_open_segments(root)
    return path


def find_open_segments(root: Path) -> list[Path]:
    """Return the open segments of both formats."""
    return sorted(path for path in root.rglob("usages-*") if is_open_segment(path))


def is_open_segment(path: Path) -> bool:
    """Return whether a file has the name of an open segment, or the one recovery gives it."""
    return path.name.endswith(("-open.ndjson.zst", ".ndjson.zst.open"))


def list_file_names(root: Path) -> list[str]:
    """Return the names in the day folders of partition 0, without indexes."""
    return sorted(path.name for path in root.glob("p00/*/*") if not path.name.startswith("_"))


class Block(NamedTuple):
    """A block of FORMAT.md."""

    offset: int
    first: int
    last: int
    lines: list[dict[str, Any]]
    end: int


def read_blocks(path: Path) -> Iterator[Block]:
    """Yield the complete blocks from offset 0 on, as in FORMAT.md."""
    if path.read_bytes().startswith(FRAME_MAGIC):
        yield from _read_frames(path)
    else:
        yield from _read_headed_blocks(path)


def _read_frames(path: Path) -> Iterator[Block]:
    data, offset = path.read_bytes(), 0
    partition, partitions = _read_scheme(path.parents[1] / "partition.json")
    while offset < len(data):
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            raw = frame.decompress(data[offset:])
        except zstandard.ZstdError:
            return
        if not frame.eof:
            return
        end = len(data) - len(frame.unused_data)
        lines = [json.loads(line) for line in raw.splitlines()]
        first, last = ((lines[at]["id"] - 1 - partition) // partitions + 1 for at in (0, -1))
        yield Block(offset, first, last, lines, end)
        offset = end


def _read_scheme(path: Path) -> tuple[int, int]:
    """Return partition and partitions, those of a single partition if the file is damaged."""
    try:
        members = json.loads(path.read_bytes())
        return members["partition"], members["partitions"]
    except (OSError, ValueError, LookupError, TypeError):
        return 0, 1


def _read_headed_blocks(path: Path) -> Iterator[Block]:
    """Yield the blocks of format 1."""
    data, offset = path.read_bytes(), 0
    while len(data) - offset >= 68:
        head = data[offset : offset + 68]
        magic, size, mark, _, _, first, last, _, _, length, crc, own = struct.unpack(
            "<II8sIIQQQQIII", head
        )
        frame = data[offset + 68 : offset + 68 + length]
        is_block = (magic, size, mark) == (0x184D2A5B, 60, b"busyapi\x01")
        if not is_block or own != zlib.crc32(head[:64]) or crc != zlib.crc32(frame):
            return
        raw = zstandard.ZstdDecompressor().decompress(frame)
        lines = [json.loads(line) for line in raw.splitlines()]
        yield Block(offset, first, last, lines, offset + 68 + length)
        offset += 68 + length


def read_ids(root: Path) -> list[int]:
    """Return the ids in finished segments and in complete blocks of open ones, in order."""
    paths = [*find_segments(root), *find_open_segments(root)]
    lines = [line for path in sorted(paths) for block in read_blocks(path) for line in block.lines]
    for line in lines:
        assert line["usage"]["timestamp"] == line["id"], "a line has the usage of another"
    return [line["id"] for line in lines]


def seal_footer(body: bytes) -> bytes:
    """Return a footer's bytes, which end with its CRC-32, with the SHA-256 and the trailer."""
    (size,) = struct.unpack_from("<I", body, body.rindex(struct.pack("<I", 0x184D2A5F)) + 4)
    return body + hashlib.sha256(body).digest() + struct.pack("<I8s", size + 8, b"busyapi\x01")


def refuse_flock(_fd: int, _operation: int) -> None:
    """Fail as a file system without flock does."""
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
