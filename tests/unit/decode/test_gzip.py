"""gzip bodies: whole, cut, followed by something, and bombs."""

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


def whole(packed: bytes, limit: int) -> bytes:
    return run_to_completion(decompress(packed, limit))


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=MAX_MEMBERS), st.integers(0, 9))
def test_members_add_up(parts: list[bytes], level: int) -> None:
    packed = b"".join(gzip.compress(part, level) for part in parts)
    assert whole(packed, LIMIT) == b"".join(parts)


def test_too_many_members_are_malformed() -> None:
    assert whole(gzip.compress(b"x") * MAX_MEMBERS, LIMIT) == b"x" * MAX_MEMBERS
    with pytest.raises(MalformedBody):
        whole(gzip.compress(b"") * (MAX_MEMBERS + 1), LIMIT)


@pytest.mark.parametrize("end", range(len(PACKED)))
def test_body_cut_anywhere_is_malformed(end: int) -> None:
    with pytest.raises(MalformedBody):
        whole(PACKED[:end], LIMIT)


def test_body_with_any_bit_turned_is_malformed_or_says_the_same() -> None:
    # Name, time and system in the header are covered by no checksum and say nothing.
    for at in range(len(PACKED) * 8):
        turned = bytearray(PACKED)
        turned[at // 8] ^= 1 << at % 8
        try:
            assert whole(bytes(turned), LIMIT) == b'{"patientId":"100"}'
        except MalformedBody:
            pass


@pytest.mark.parametrize("rest", [b"\0", b"\0" * 512, b"x", b"{}", PACKED[:5], b"\x1f\x8b"])
def test_rest_behind_the_last_member_is_malformed(rest: bytes) -> None:
    with pytest.raises(MalformedBody):
        whole(PACKED + rest, LIMIT)


@pytest.mark.parametrize(
    "packed", [b"", b"{}", zlib.compress(b"{}"), zlib.compress(b"{}")[2:-4]], ids=repr
)
def test_what_is_not_gzip_is_malformed(packed: bytes) -> None:
    with pytest.raises(MalformedBody):
        whole(packed, LIMIT)


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda rest: PACKED[:10] + rest))
def test_any_bytes_give_bytes_or_a_bad_usage(packed: bytes) -> None:
    try:
        assert len(whole(packed, 50)) <= 50
    except InvalidRequest:
        pass


def test_limit_is_exact_over_several_members() -> None:
    packed = gzip.compress(b"x" * 600) + gzip.compress(b"y" * 400) + gzip.compress(b"")
    assert len(whole(packed, 1000)) == 1000
    with pytest.raises(BodyTooLarge):
        whole(packed, 999)
    with pytest.raises(BodyTooLarge):
        whole(packed, 600)


@pytest.mark.parametrize("before", [b"", gzip.compress(b"x" * LIMIT, mtime=0)])
def test_bomb_is_refused_before_it_fills_memory(before: bytes) -> None:
    bomb = before + gzip.compress(b"\0" * 50_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            whole(bomb, LIMIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What is inflated so far, once in zlib's hands and once in ours.
    assert peak < 2.5 * LIMIT + len(bomb)
