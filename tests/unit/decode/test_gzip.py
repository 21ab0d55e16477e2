"""gzip bodies: complete, cut, followed by other bytes, and bombs."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busyapi.decode.gzip import MAX_MEMBERS, decompress
from busyapi.decode.incremental import run_to_completion
from busyapi.errors import BodyTooLarge, InvalidRequest, MalformedBody

LIMIT = 1_000_000
PACKED = gzip.compress(b'{"patientId":"100"}', mtime=0)


def decompress_all(packed: bytes, limit: int) -> bytes:
    return run_to_completion(decompress(packed, limit))


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=MAX_MEMBERS), st.integers(0, 9))
def test_members_add_up(parts: list[bytes], level: int) -> None:
    packed = b"".join(gzip.compress(part, level) for part in parts)
    assert decompress_all(packed, LIMIT) == b"".join(parts)


def test_too_many_members_are_malformed() -> None:
    assert decompress_all(gzip.compress(b"x") * MAX_MEMBERS, LIMIT) == b"x" * MAX_MEMBERS
    with pytest.raises(MalformedBody):
        decompress_all(gzip.compress(b"") * (MAX_MEMBERS + 1), LIMIT)


@pytest.mark.parametrize("end", range(len(PACKED)))
def test_body_cut_anywhere_is_malformed(end: int) -> None:
    with pytest.raises(MalformedBody):
        decompress_all(PACKED[:end], LIMIT)


def test_body_with_any_bit_changed_is_malformed_or_equal() -> None:
    # No checksum covers name, time and system in the header, and they change nothing.
    for at in range(len(PACKED) * 8):
        changed = bytearray(PACKED)
        changed[at // 8] ^= 1 << at % 8
        try:
            assert decompress_all(bytes(changed), LIMIT) == b'{"patientId":"100"}'
        except MalformedBody:
            pass


@pytest.mark.parametrize("rest", [b"\0", b"\0" * 512, b"x", b"{}", PACKED[:5], b"\x1f\x8b"])
def test_bytes_after_the_last_member_are_malformed(rest: bytes) -> None:
    with pytest.raises(MalformedBody):
        decompress_all(PACKED + rest, LIMIT)


@pytest.mark.parametrize(
    "packed", [b"", b"{}", zlib.compress(b"{}"), zlib.compress(b"{}")[2:-4]], ids=repr
)
def test_data_that_is_not_gzip_is_malformed(packed: bytes) -> None:
    with pytest.raises(MalformedBody):
        decompress_all(packed, LIMIT)


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda rest: PACKED[:10] + rest))
def test_any_bytes_give_bytes_or_an_invalid_request(packed: bytes) -> None:
    try:
        assert len(decompress_all(packed, 50)) <= 50
    except InvalidRequest:
        pass


def test_limit_is_exact_over_several_members() -> None:
    packed = gzip.compress(b"x" * 600) + gzip.compress(b"y" * 400) + gzip.compress(b"")
    assert len(decompress_all(packed, 1000)) == 1000
    with pytest.raises(BodyTooLarge):
        decompress_all(packed, 999)
    with pytest.raises(BodyTooLarge):
        decompress_all(packed, 600)


@pytest.mark.parametrize("before", [b"", gzip.compress(b"x" * LIMIT, mtime=0)])
def test_bomb_is_refused_before_it_fills_memory(before: bytes) -> None:
    bomb = before + gzip.compress(b"\0" * 50_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            decompress_all(bomb, LIMIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # zlib and busyapi each hold the data that is decompressed so far.
    assert peak < 2.5 * LIMIT + len(bomb)
