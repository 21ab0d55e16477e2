"""A chunked body decodes to the same data however it arrives, or is refused."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busyapi.web.chunks import ChunkDecoder, MalformedChunk
from testkit.framing_cases import REFUSED_CHUNKS

NEXT = b"GET / HTTP/1.1\r\n"
MAX_OVERHEAD = 1000


def decode_pieces(pieces: list[bytes]) -> tuple[bytes, bytes]:
    """Return the data of a body that arrives in pieces, and the bytes after it."""
    chunks, held, data = ChunkDecoder(MAX_OVERHEAD), b"", b""
    for piece in pieces:
        held += piece
        if not chunks.done:
            used, part = chunks.decode(held)
            held, data = held[used:], data + part
    assert chunks.done
    assert chunks.announced_bytes == len(data)
    return data, held


def encode_chunks(parts: list[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    chunks = [b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts if part]
    return b"".join(chunks) + b"0\r\n" + trailers + b"\r\n"


@given(
    parts=st.lists(st.binary(max_size=40), max_size=8),
    extension=st.sampled_from([b"", b";a", b';a="b c"']),
    trailers=st.sampled_from([b"", b"X: y\r\n", b"X:\r\nY: z\r\n"]),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_a_body_cut_anywhere_gives_the_same_data(
    parts: list[bytes], extension: bytes, trailers: bytes, cuts: list[int]
) -> None:
    raw = encode_chunks(parts, extension, trailers) + NEXT
    ends = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    pieces = [raw[a:b] for a, b in pairwise(ends)]
    assert decode_pieces(pieces) == (b"".join(parts), NEXT)


def test_a_body_that_arrives_byte_by_byte_gives_the_same_data() -> None:
    raw = encode_chunks([b"abc", b"d" * 300], b";x=y", b"X: y\r\n")
    assert decode_pieces([bytes([byte]) for byte in raw]) == (b"abc" + b"d" * 300, b"")


@pytest.mark.parametrize("raw", REFUSED_CHUNKS.values(), ids=REFUSED_CHUNKS)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_an_ambiguous_body_is_refused_however_it_arrives(raw: bytes, size: int) -> None:
    body = raw.partition(b"\r\n\r\n")[2] + NEXT + b"\r\n" * 2
    chunks = ChunkDecoder(MAX_OVERHEAD)

    def decode_in_pieces() -> None:
        held = b""
        for at in range(0, len(body), size):
            held += body[at : at + size]
            held = held[chunks.decode(held)[0] :]
            assert not chunks.done
        assert chunks.failed, "what comes before the malformed place is returned first"
        chunks.decode(held)

    with pytest.raises(MalformedChunk):
        decode_in_pieces()
    with pytest.raises(MalformedChunk):
        chunks.decode(encode_chunks([]))


def test_an_invalid_chunk_is_refused_before_its_line_ends() -> None:
    for start in (b"x", b"+", b"123456789", b"1;" + b"x" * 257, b"1;\x00", b"1\n", b"1\rx"):
        with pytest.raises(MalformedChunk):
            ChunkDecoder(MAX_OVERHEAD).decode(start)
    for start in (b"", b"1", b"12345678", b"1\r", b"1;", b"1;" + b"x" * 256 + b"\r", b"0\r\nX"):
        chunks = ChunkDecoder(MAX_OVERHEAD)
        chunks.decode(start)
        assert not chunks.done


def test_the_size_of_a_body_is_known_before_its_data() -> None:
    chunks = ChunkDecoder(MAX_OVERHEAD)
    chunks.decode(b"FFFFFFFF\r\n")
    assert chunks.announced_bytes == 2**32 - 1


def test_data_before_a_malformed_place_is_returned_before_it_is_refused() -> None:
    chunks = ChunkDecoder(MAX_OVERHEAD)
    assert chunks.decode(b"2\r\nabX") == (5, b"ab")
    assert chunks.failed
    with pytest.raises(MalformedChunk):
        chunks.decode(b"X")
