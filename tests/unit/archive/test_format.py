import hashlib
import json
import shutil
import struct
import subprocess
import zlib
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busyapi.archive import paths
from busyapi.archive.block_builder import BlockBuilder
from busyapi.archive.compression import decompress
from busyapi.archive.format import (
    BLOCK_SIZE,
    BlockHeader,
    SegmentIndex,
    SegmentSummary,
    decode_block_header,
    decode_footer,
    encode_block_header,
    encode_footer,
    encode_trailer,
)
from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.ids import Seq, make_usage_id
from busyapi.usage_json import render_usage
from testkit.archive.builder import (
    RECEIVED_MS,
    find_open_segment,
    find_segments,
    join_usages,
    make_batch,
    make_usage,
    read_blocks,
    recover_writer,
    render_batches,
)

BLOCK = BlockHeader(1, 4, Seq(8), Seq(9), RECEIVED_MS, RECEIVED_MS + 1, 1000, 77)


def test_lines_equal_what_the_buffer_returns_for_the_same_usage() -> None:
    batches = [make_batch(5, 3), make_batch(8, 1, received_ms=RECEIVED_MS + 1000)]
    lines = render_batches(batches, 1, 4).split(b"\n")
    expected = [
        render_usage(make_usage_id(Seq(seq), 1, 4), at, make_usage(seq))
        for seq, at in (
            (5, RECEIVED_MS),
            (6, RECEIVED_MS),
            (7, RECEIVED_MS),
            (8, RECEIVED_MS + 1000),
        )
    ]
    assert lines == [*expected, b""]


def test_long_blocks_are_the_lines_of_their_usages() -> None:
    counts = [1, 510, 1, 1, 1300, 511, 2, 512, 1024, 3]
    firsts = accumulate(counts[:-1], initial=7)
    batches = [make_batch(f, n, RECEIVED_MS + f) for f, n in zip(firsts, counts, strict=True)]
    expected = [
        render_usage(make_usage_id(seq, 1, 4), batch.received_ms, make_usage(seq)) + b"\n"
        for batch in batches
        for seq in range(batch.first, batch.last + 1)
    ]
    builder = BlockBuilder()
    # The second block is shorter than the first, whose memory it uses.
    for from_batch in (0, 8):
        block = builder.build(batches[from_batch:], 1, 4)
        lines = b"".join(expected[batches[from_batch].first - 7 :])
        assert decompress(block.data) == lines
        assert block.raw_bytes == len(lines)


def test_a_percent_sign_in_a_usage_stays_one() -> None:
    lines = render_batches([join_usages(1, [b'{"a":"100%d %b %%"}'])], 0, 1)
    assert json.loads(lines)["usage"] == {"a": "100%d %b %%"}


def test_a_block_header_reads_back_and_every_changed_byte_is_seen() -> None:
    raw = encode_block_header(BLOCK)
    assert len(raw) == BLOCK_SIZE == 68
    assert decode_block_header(raw) == BLOCK
    for at in range(len(raw)):
        assert decode_block_header(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]) is None
        assert decode_block_header(raw[:at]) is None


def test_a_footer_reads_back_and_every_changed_byte_of_its_body_is_seen() -> None:
    index = SegmentIndex()
    index.add(0, BLOCK)
    footer = SegmentSummary(1, 4, Seq(8), Seq(9), 2, 300, index, 1068, b"s" * 32)
    body = encode_footer(footer)
    raw = body + encode_trailer(b"s" * 32, len(body) + 44)
    decoded = decode_footer(raw, 1068)
    assert decoded
    assert decoded.block_index.packed == index.packed
    assert decoded._replace(block_index=index) == footer
    for at in range(len(body)):
        assert decode_footer(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], 1068) is None


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_the_index_finds_the_block_of_every_seq_and_of_no_other(counts: list[int]) -> None:
    index, first = SegmentIndex(), 10
    owner: dict[int, int] = {}
    for offset, count in enumerate(counts):
        index.add(offset, BLOCK._replace(first=Seq(first), last=Seq(first + count - 1)))
        owner |= dict.fromkeys(range(first, first + count), offset)
        first += count
    for seq in range(first + 10):
        entry = index.find(Seq(seq))
        assert (entry.offset if entry else None) == owner.get(seq)


@pytest.mark.parametrize("kind", FileKind)
def test_a_name_reads_back(kind: FileKind) -> None:
    last = paths.UNKNOWN_SEQ if kind is FileKind.OPEN else Seq(9)
    file = paths.name_file(kind, "2026-11-23", 3, Seq(7), last)
    day, name = file.path.split("/")
    assert paths.parse_file_name(day, name, 3) == file == ArchiveFile(Seq(7), last, kind, file.path)
    assert paths.parse_file_name(day, name, 4) is None
    assert paths.parse_file_name(day, name + ".tmp", 3) is None


def test_names_sort_as_seqs_do() -> None:
    seqs = [1, 2, 9, 10, 99, 100, 2**31, 2**53]
    names = [paths.name_file(FileKind.SEGMENT, "d", 0, Seq(seq), Seq(seq)).path for seq in seqs]
    assert sorted(names) == names


@pytest.mark.formats(1)
def test_a_finished_segment_of_format_1_matches_the_format_document(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path, 1, 2)
    writer.append([make_batch(1, 3, received_ms=RECEIVED_MS + 5), make_batch(4, 1)])
    writer.append([make_batch(5, 2)])
    writer.close()
    (path,) = find_segments(tmp_path)
    data, segment_blocks = path.read_bytes(), list(read_blocks(path))
    assert path.name == "usages-p01-0000000000000001-0000000000000006.ndjson.zst"
    assert [(block.first, block.last) for block in segment_blocks] == [(1, 4), (5, 6)]
    assert [line["id"] for block in segment_blocks for line in block.lines] == [2, 4, 6, 8, 10, 12]

    footer = data[segment_blocks[-1].end :]
    head = struct.unpack_from("<II8sIIQQQQI", footer)
    lines = [line for block in segment_blocks for line in block.lines]
    size = sum(len(json.dumps(line, separators=(",", ":"))) + 1 for line in lines)
    assert head == (0x184D2A5F, 100 + 80, b"busyapi\x01", 1, 2, 1, 6, 6, size, 2)
    assert struct.unpack_from("<10Q", footer, 60) == (
        *(0, 1, 4, RECEIVED_MS, RECEIVED_MS + 5),
        *(segment_blocks[1].offset, 5, 6, RECEIVED_MS, RECEIVED_MS),
    )
    assert struct.unpack_from("<I", footer, 140)[0] == zlib.crc32(footer[:140])
    assert footer[144:176] == hashlib.sha256(data[:-44]).digest()
    assert struct.unpack_from("<I8s", footer, 176) == (len(footer), b"busyapi\x01")


@pytest.mark.formats(1, 2)
@pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not installed")
def test_the_zstd_tool_reads_segments_finished_and_open(tmp_path: Path) -> None:
    writer = recover_writer(tmp_path)
    writer.append([make_batch(1, 3)])
    writer.append([make_batch(4, 2)])
    open_text = subprocess.run(
        ["zstd", "-dc"], input=find_open_segment(tmp_path).read_bytes(), check=True,
        capture_output=True,
    ).stdout  # fmt: skip
    writer.close()
    finished_text = subprocess.run(
        ["zstd", "-dc", *find_segments(tmp_path)], check=True, capture_output=True
    ).stdout
    assert finished_text == open_text
    assert [json.loads(line)["id"] for line in finished_text.splitlines()] == [1, 2, 3, 4, 5]
