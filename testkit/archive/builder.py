"""Archives made for tests, and a second reader of them.

The second reader is written after FORMAT.md with struct, zlib and zstandard alone: it shares
nothing with the code that wrote the files.
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
    """Return the time at which a usage that is posted now is received."""
    return int(time.time() * 1000)


def make_usage(seq: int) -> bytes:
    """Return a usage that is unlike any of another seq."""
    return b'{"patientId":"%d","timestamp":%d,"medication":"Albuterol"}' % (seq % 7, seq)


def make_batch(first: int, count: int = 1, received_ms: int = RECEIVED_MS) -> UsageBatch:
    """Return a batch of `count` usages from this seq on."""
    usages = [make_usage(seq) for seq in range(first, first + count)]
    return UsageBatch(Seq(first), Seq(first + count - 1), received_ms, usages)


def recover_writer(
    root: Path, partition: int = 0, partitions: int = 1, **options: Any
) -> PartitionWriter:
    """Recover a partition with settings that roll nothing."""
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
    """Let go of the lock and nothing else, as a process does that is killed."""
    writer._lookup.segment = None
    writer.close()


def write_blocks(root: Path, *blocks: int, partition: int = 0, partitions: int = 1) -> Path:
    """Append blocks of so many usages, and die; return the open segment."""
    writer = recover_writer(root, partition, partitions)
    for count in blocks:
        writer.append([make_batch(writer.cursor + 1, count)])
    abandon_writer(writer)
    return find_open_segment(root)


def set_high_water(root: Path, seq: int | None) -> None:
    """Put the high-water mark at a seq; None removes it, as 0.2.0 would leave the folder."""
    said = identity.read_identity(root / "p00")
    assert said
    (root / "p00" / paths.HIGH_WATER_NAME).unlink()
    if seq is not None:
        high_water.HighWaterMark.create(root / "p00", said.archive_id, Seq(seq)).close()


def change_identity(path: Path, **members: object) -> None:
    """Change members of a partition.json as a person does: without its checksum."""
    said = json.loads(path.read_text()) | members
    said.pop("crc", None)
    path.write_text(json.dumps(said))


def write_as_0_2_0(path: Path) -> None:
    """Leave out of a partition.json what 0.2.0 does not know."""
    said = json.loads(path.read_text())
    for name in ("home", "prefix", "crc"):
        said.pop(name, None)
    path.write_text(json.dumps(said, indent=2) + "\n")


def find_segments(root: Path) -> list[Path]:
    """List the finished segments."""
    return sorted(root.rglob("*.ndjson.zst"))


def find_open_segment(root: Path) -> Path:
    """Return the one open segment."""
    (path,) = root.rglob("*.open")
    return path


def list_file_names(root: Path) -> list[str]:
    """List the names in the day folders of partition 0."""
    return sorted(each.name for each in root.glob("p00/*/*"))


class Block(NamedTuple):
    """A block as FORMAT.md describes it."""

    offset: int
    first: int
    last: int
    lines: list[dict[str, Any]]
    end: int


def read_blocks(path: Path) -> Iterator[Block]:
    """Read the whole blocks from offset 0 on, as FORMAT.md says."""
    data, offset = path.read_bytes(), 0
    while len(data) - offset >= 68:
        head = data[offset : offset + 68]
        magic, size, mark, _, _, first, last, _, _, length, crc, own = struct.unpack(
            "<II8sIIQQQQIII", head
        )
        frame = data[offset + 68 : offset + 68 + length]
        whole = (magic, size, mark) == (0x184D2A5B, 60, b"busyapi\x01")
        if not whole or own != zlib.crc32(head[:64]) or crc != zlib.crc32(frame):
            return
        raw = zstandard.ZstdDecompressor().decompress(frame)
        lines = [json.loads(each) for each in raw.splitlines()]
        yield Block(offset, first, last, lines, offset + 68 + length)
        offset += 68 + length


def read_ids(root: Path) -> list[int]:
    """Read the ids of every line in finished segments and whole blocks of open ones, in order."""
    paths = [*root.rglob("*.ndjson.zst"), *root.rglob("*.ndjson.zst.open")]
    found = [line for path in sorted(paths) for block in read_blocks(path) for line in block.lines]
    for line in found:
        assert line["usage"]["timestamp"] == line["id"], "a line has another's usage"
    return [line["id"] for line in found]


def seal_footer(body: bytes) -> bytes:
    """Add to a footer's bytes, up to its own CRC-32, what FORMAT.md says must follow."""
    (size,) = struct.unpack_from("<I", body, body.rindex(struct.pack("<I", 0x184D2A5F)) + 4)
    return body + hashlib.sha256(body).digest() + struct.pack("<I8s", size + 8, b"busyapi\x01")
