"""Build archives for tests, and read them with a second reader.

The second reader follows FORMAT.md with struct, zlib and zstandard alone. It shares no code with
the writer.
"""

import hashlib
import json
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from busyapi.archive import high_water, identity, paths
from busyapi.archive.config import ArchiveConfig
from busyapi.archive.format import UsageBatch
from busyapi.archive.writer import PartitionWriter
from busyapi.ids import Seq

RECEIVED_MS = 1_763_925_120_123
"""2025-11-23T19:12:00.123Z."""
DAY_MS = 86_400_000


def now_ms() -> int:
    """Return the receive time of a usage that is posted now."""
    return int(time.time() * 1000)


def make_usage(seq: int) -> bytes:
    """Return a usage that differs from that of any other seq."""
    return b'{"patientId":"%d","timestamp":%d,"medication":"Albuterol"}' % (seq % 7, seq)


def make_batch(first: int, count: int = 1, received_ms: int = RECEIVED_MS) -> UsageBatch:
    """Return a batch of `count` usages that starts at this seq."""
    usages = [make_usage(seq) for seq in range(first, first + count)]
    return UsageBatch(Seq(first), Seq(first + count - 1), received_ms, usages)


def recover_writer(
    root: Path, partition: int = 0, partitions: int = 1, **options: Any
) -> PartitionWriter:
    """Recover a partition with settings that never start a new segment."""
    settings: dict[str, Any] = {
        "bound": 1000,
        "segment_bytes": 1 << 30,
        "segment_age": 1e9,
        "retention_days": 0,
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
    return sorted(root.rglob("*.ndjson.zst"))


def find_open_segment(root: Path) -> Path:
    """Return the only open segment."""
    (path,) = root.rglob("*.open")
    return path


def list_file_names(root: Path) -> list[str]:
    """Return the names in the day folders of partition 0."""
    return sorted(path.name for path in root.glob("p00/*/*"))


class Block(NamedTuple):
    """A block of FORMAT.md."""

    offset: int
    first: int
    last: int
    lines: list[dict[str, Any]]
    end: int


def read_blocks(path: Path) -> Iterator[Block]:
    """Yield the complete blocks from offset 0 on, as in FORMAT.md."""
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
    paths = [*root.rglob("*.ndjson.zst"), *root.rglob("*.ndjson.zst.open")]
    lines = [line for path in sorted(paths) for block in read_blocks(path) for line in block.lines]
    for line in lines:
        assert line["usage"]["timestamp"] == line["id"], "a line has the usage of another"
    return [line["id"] for line in lines]


def seal_footer(body: bytes) -> bytes:
    """Return a footer's bytes, which end with its CRC-32, with the SHA-256 and the trailer."""
    (size,) = struct.unpack_from("<I", body, body.rindex(struct.pack("<I", 0x184D2A5F)) + 4)
    return body + hashlib.sha256(body).digest() + struct.pack("<I8s", size + 8, b"busyapi\x01")
