"""Frames and indexes of format 2."""

import hashlib
import json
import random
import struct
import tempfile
import zlib
from pathlib import Path

import pytest
import zstandard

from busyapi.archive.compression import compress, decompress
from busyapi.archive.frames import is_partial_frame, read_frame_at, summarize_lines
from busyapi.archive.index_file import decode_index, encode_index
from busyapi.archive.reader import read_format, scan_blocks
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq
from busyapi.strides import IdScheme
from testkit.archive.builder import (
    RECEIVED_MS,
    find_segments,
    join_usages,
    make_batch,
    read_blocks,
    recover_writer,
    render_batches,
)

OWNER = (1, 2)
IDS = IdScheme.fixed(*OWNER)
NEXT_LINE = b'{"id":%d,"receivedAt":"'


def make_frame(first: int, count: int, received_ms: int = RECEIVED_MS) -> bytes:
    return compress(render_batches([make_batch(first, count, received_ms)], *OWNER))


def make_long_frame(first: int) -> bytes:
    """Return a frame of several zstd blocks, whose lines cannot be compressed."""
    noise = random.Random(5)
    usages = [b'{"a":"%b"}' % noise.randbytes(500).hex().encode() for _ in range(400)]
    frame = compress(render_batches([join_usages(first, usages)], *OWNER))
    assert len(frame) > 200_000  # of 400 KB, in four zstd blocks
    return frame


class OpenBytes:
    """A file with these bytes."""

    def __init__(self, data: bytes) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object
        self._file.write(data)
        self._file.flush()
        self.fd, self.size = self._file.fileno(), len(data)


def list_first_seqs(data: bytes) -> list[int]:
    """Return the first seq of each block that a scan finds."""
    file = OpenBytes(data)
    return [block.header.first for block in scan_blocks(file.fd, IDS)]


def test_a_finished_segment_of_format_2_matches_the_format_document(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path, 1, 2)
    writer.append([make_batch(1, 3, received_ms=RECEIVED_MS + 5), make_batch(4, 1)])
    writer.append([make_batch(5, 2)])
    writer.close()
    (path,) = find_segments(tmp_path)
    data, blocks = path.read_bytes(), list(read_blocks(path))
    assert path.name == "usages-p01-0000000000000001-0000000000000006.ndjson.zst"
    assert [(block.offset, block.first, block.last) for block in blocks] == [
        (0, 1, 4),
        (blocks[0].end, 5, 6),
    ]
    assert blocks[-1].end == len(data)
    for block in blocks:
        stated = zstandard.get_frame_parameters(data[block.offset :])
        assert (stated.has_checksum, stated.dict_id) == (True, 0)
    index = (path.parent / "_usages-p01-0000000000000001-0000000000000006.index").read_bytes()
    lines = [line for block in blocks for line in block.lines]
    size = sum(len(json.dumps(line, separators=(",", ":"))) + 1 for line in lines)
    end = blocks[0].end
    assert struct.unpack_from("<8sIIQQQQQI32s8s", index) == (
        *(b"busyidx\x02", 1, 2, 1, 6, 2, size, len(data), 2),
        hashlib.sha256(data).digest(),
        data[end - 4 : end] + data[-4:],
    )
    assert struct.unpack_from("<10Q", index, 100) == (
        *(0, 1, 4, RECEIVED_MS, RECEIVED_MS + 5),
        *(blocks[1].offset, 5, 6, RECEIVED_MS, RECEIVED_MS),
    )
    assert len(index) == 100 + 80 + 4
    assert struct.unpack_from("<I", index, 180)[0] == zlib.crc32(index[:180])
    summary = decode_index(index)
    assert summary
    assert encode_index(summary) == index
    for at in range(len(index)):
        assert decode_index(index[:at] + bytes([index[at] ^ 1]) + index[at + 1 :]) is None
        assert decode_index(index[:at]) is None


def test_the_index_of_a_later_version_with_sections_is_read(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, 3)])
    writer.close()
    (path,) = tmp_path.rglob("_usages-*.index")
    index, section = path.read_bytes(), struct.pack("<II", 7, 3) + b"abc"
    path.write_bytes(index + section + struct.pack("<I", zlib.crc32(index[60:92] + section)))
    writer = recover_writer(tmp_path)
    assert writer.damage_reports == []
    assert writer.find_line(Seq(2))
    writer.close()
    assert path.read_bytes().startswith(index), "a valid index stays"


@pytest.mark.parametrize("frame", [make_frame(5, 3), make_long_frame(5)], ids=["short", "long"])
def test_a_frame_of_every_length_is_complete_or_a_beginning(frame: bytes) -> None:
    next_line = NEXT_LINE % IDS.id_of(Seq(5))
    for length in [*range(1, min(len(frame), 300)), *range(300, len(frame), 9973), len(frame)]:
        file = OpenBytes(frame[:length])
        read = read_frame_at(file.fd, 0, file.size, IDS)
        assert (read is not None) == (length == len(frame))
        assert is_partial_frame(file.fd, 0, file.size, next_line) == (length < len(frame))
        if read:
            assert read.data == frame
            assert (read.header.first, read.header.owner) == (5, OWNER)


def test_zeros_and_noise_in_a_frame_are_never_read_as_lines() -> None:
    """A power cut or a disk changes whole sectors of a frame that may have its full length."""
    noise = random.Random(7)
    frame = make_long_frame(5)
    for _ in range(60):
        start = noise.randrange(len(frame))
        size = noise.choice([1, 512, 4096, 50_000])
        piece = bytes(size) if noise.random() < 0.5 else noise.randbytes(size)
        data = (frame[:start] + piece + frame[start + size :])[: len(frame)]
        if data == frame:
            continue
        file = OpenBytes(data)
        assert read_frame_at(file.fd, 0, file.size, IDS) is None


def test_frames_after_damage_are_found_at_every_offset() -> None:
    frames = [make_frame(1, 2), make_frame(3, 2), make_frame(5, 1)]
    data = b"".join(frames)
    for at in range(len(frames[0]), len(frames[0] + frames[1])):
        changed = data[:at] + bytes([data[at] ^ 0x81]) + data[at + 1 :]
        assert list_first_seqs(changed) == [1, 5]
    for junk in (b"x", b"\x28\xb5\x2f\xfd", frames[1][:20], bytes(3000)):
        assert list_first_seqs(junk + data + junk + frames[2]) == [1, 3, 5, 5]


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"\n",
        b'{"id":2,"receivedAt":"2025-11-23T19:12:00.123Z","usage":{}}',
        b'{"id":3,"receivedAt":"2025-11-23T19:12:00.123Z","usage":{}}\n',
        b'{"id":0,"receivedAt":"2025-11-23T19:12:00.123Z","usage":{}}\n',
        b'{"id":2,"receivedAt":"2025-11-23T19:12:00.1234","usage":{}}\n',
        b'{"id":2,"receivedAt":"2025-13-23T19:12:00.123Z","usage":{}}\n',
        b'{"id":2,"receivedAt":"1925-11-23T19:12:00.123Z","usage":{}}\n',
        (
            b'{"id":2,"receivedAt":"2025-11-23T19:12:00.123Z","usage":{}}\nx\n'
            b'{"id":4,"receivedAt":"2025-11-23T19:12:00.123Z","usage":{}}\n'
        ),
        (
            b'{"id":2,"receivedAt":"2025-11-23T19:12:00.123Z","usage":{}}\n\n'
            b'{"id":6,"receivedAt":"2025-11-23T19:12:00.123Z","usage":{}}\n'
        ),
        (
            b'{"id":2,"receivedAt":"2025-11-23T19:12:00.123Z","usage":{}}\n'
            b'{"id":8,"receivedAt":"2025-11-23T19:12:00.123Z","usage":{}}\n'
        ),
    ],
)
def test_what_is_not_lines_of_the_partition_is_no_block(lines: bytes) -> None:
    assert summarize_lines(lines, IDS) is None
    file = OpenBytes(compress(lines))
    assert read_frame_at(file.fd, 0, file.size, IDS) is None


def test_a_frame_that_states_a_size_beyond_the_memory_is_damaged() -> None:
    frame = bytearray(zstandard.ZstdCompressor().compress(bytes(300)))
    assert frame[4] >> 6 == 1, "the size has two bytes"
    del frame[5:7]
    frame[4] |= 0b11 << 6  # eight bytes
    frame[5:5] = (1 << 60).to_bytes(8, "little")
    with pytest.raises(ArchiveDamaged, match="beyond the memory"):
        decompress(bytes(frame))


def test_ids_of_different_lengths_share_a_frame() -> None:
    batches = [make_batch(4, 2, RECEIVED_MS + 9), make_batch(6, 500, RECEIVED_MS)]
    summary = summarize_lines(render_batches(batches, *OWNER), IDS)
    assert summary == (4, 505, RECEIVED_MS, RECEIVED_MS + 9)


@pytest.mark.parametrize(
    "frame",
    [
        zstandard.ZstdCompressor(write_checksum=False).compress(
            render_batches([make_batch(5)], *OWNER)
        ),
        zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(
            render_batches([make_batch(5)], *OWNER)
        ),
    ],
    ids=["no checksum", "no content size"],
)
def test_a_frame_that_is_less_protected_is_no_block(frame: bytes) -> None:
    file = OpenBytes(frame)
    assert read_frame_at(file.fd, 0, file.size, IDS) is None


@pytest.mark.formats(1, 2)
def test_a_damaged_beginning_does_not_hide_the_format(tmp_path: Path, archive_format: int) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, 3)])
    writer.append([make_batch(4, 3)])
    writer.close()
    (path,) = find_segments(tmp_path)
    data = path.read_bytes()
    for at in range(4):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with path.open("rb") as file:
            assert read_format(file.fileno()) == archive_format
