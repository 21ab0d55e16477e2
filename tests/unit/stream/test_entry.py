"""A stream entry: a flusher decodes what a committer encodes, and refuses anything else."""

from collections.abc import Callable
from zlib import crc32

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from busyapi.errors import UnknownVersion
from busyapi.ids import Seq
from busyapi.stream.entry import (
    BadEntry,
    Entry,
    check_entry,
    decode_entry,
    encode_entry,
    encode_stamped_entry,
    parse_entry,
    split_lines,
)
from busyapi.usage_json import MAX_RECEIVED_MS

FIELD = b"u"

# No line holds a newline, and none is empty: each is a JSON object.
lines_of_bytes = st.lists(
    st.binary(min_size=1, max_size=40).map(lambda raw: raw.replace(b"\n", b" ")),
    min_size=1,
    max_size=20,
)
times = st.integers(0, MAX_RECEIVED_MS)
last_seqs = st.integers(100, 2**53)


Encode = Callable[[list[bytes], int], bytes]
encoders = st.sampled_from([encode_entry, encode_stamped_entry])


def make_entry(
    lines: list[bytes], received_ms: int = 1, last: int = 1000, encode: Encode = encode_entry
) -> Entry:
    fields = [b"u", encode(lines, received_ms)]
    return parse_entry(b"%d-%d" % (last, len(lines)), fields)


@given(lines_of_bytes, times, last_seqs, encoders)
def test_decoded_entry_equals_the_encoded_one(
    lines: list[bytes], received_ms: int, last: int, encode: Encode
) -> None:
    entry = make_entry(lines, received_ms, last, encode)
    assert (entry.first, entry.last) == (last - len(lines) + 1, last)
    usages = decode_entry(entry)
    assert usages.lines == lines
    assert usages.received_ms == received_ms


def test_entry_without_stamps_is_what_every_release_has_written() -> None:
    assert encode_entry([b'{"a":1}', b"{}"], 7) == b'1 7 4a5ad17a\n{"a":1}\n{}'


def test_entry_with_stamps_has_the_checksum_of_header_and_lines() -> None:
    body = b'{"a":1},"writer":"8nC3hQ2vXr0aLw_K","tenant":"t"\n{}'
    value = encode_stamped_entry(body.split(b"\n"), 7)
    assert value == b"2 7 %08x\n%b" % (crc32(b"2 7" + body), body)


@given(lines_of_bytes, st.data(), encoders)
def test_changed_byte_behind_the_header_is_refused(
    lines: list[bytes], data: st.DataObject, encode: Encode
) -> None:
    entry = make_entry(lines, encode=encode)
    at = data.draw(st.integers(entry.value.index(b"\n") + 1, len(entry.value) - 1))
    other = data.draw(st.integers(0, 255))
    assume(other != entry.value[at])
    changed = entry.value[:at] + bytes([other]) + entry.value[at + 1 :]
    with pytest.raises(BadEntry):
        decode_entry(entry._replace(value=changed))


@given(lines_of_bytes, st.data())
def test_flipped_bit_anywhere_in_an_entry_with_stamps_is_refused(
    lines: list[bytes], data: st.DataObject
) -> None:
    entry = make_entry(lines, 1_764_345_600_000, encode=encode_stamped_entry)
    at, bit = data.draw(st.integers(0, len(entry.value) - 1)), data.draw(st.integers(0, 7))
    changed = entry.value[:at] + bytes([entry.value[at] ^ 1 << bit]) + entry.value[at + 1 :]
    with pytest.raises((BadEntry, UnknownVersion)):
        decode_entry(entry._replace(value=changed))


def test_entry_of_one_version_is_no_entry_of_the_other() -> None:
    for encode, version in ((encode_entry, b"2"), (encode_stamped_entry, b"1")):
        entry = make_entry([b"{}"], encode=encode)
        with pytest.raises(BadEntry, match="checksum"):
            decode_entry(entry._replace(value=version + entry.value[1:]))


@given(lines_of_bytes, st.data(), encoders)
def test_value_cut_short_is_refused(
    lines: list[bytes], data: st.DataObject, encode: Encode
) -> None:
    entry = make_entry(lines, encode=encode)
    end = data.draw(st.integers(0, len(entry.value) - 1))
    with pytest.raises(BadEntry):
        decode_entry(entry._replace(value=entry.value[:end]))


def test_value_cut_within_its_checksum_is_refused() -> None:
    # An empty line has the checksum 0.
    with pytest.raises(BadEntry, match="checksum"):
        decode_entry(Entry(Seq(1), Seq(1), b"1 1 0"))


@given(st.binary(max_size=60))
def test_any_other_bytes_are_decoded_or_refused(value: bytes) -> None:
    try:
        decode_entry(Entry(Seq(1), Seq(1), value))
    except (BadEntry, UnknownVersion):
        pass


@pytest.mark.parametrize("claimed", [1, 3])
def test_id_that_claims_another_number_of_usages_is_refused(claimed: int) -> None:
    entry = parse_entry(b"10-%d" % claimed, [b"u", encode_entry([b"{}", b"{}"], 1)])
    with pytest.raises(BadEntry, match="count"):
        decode_entry(entry)


def test_entry_without_fields_is_refused() -> None:
    with pytest.raises(BadEntry, match="header"):
        decode_entry(parse_entry(b"10-1", []))


@pytest.mark.parametrize("fields", [[b"v", b"x"], [b"u", b"1 1 0\n", b"more", b"y"]])
def test_entry_with_a_field_of_another_version_is_unknown_and_not_bad(fields: list[bytes]) -> None:
    with pytest.raises(UnknownVersion, match="seqs 10 to 10 has an unknown field"):
        decode_entry(parse_entry(b"10-1", fields))


@pytest.mark.parametrize("version", [b"3", b"10", b"999999"])
def test_other_version_is_unknown_and_not_bad(version: bytes) -> None:
    entry = make_entry([b"{}"])
    with pytest.raises(UnknownVersion, match=f"has version {version.decode()}, and busyapi"):
        decode_entry(entry._replace(value=version + entry.value[1:]))
    # Such a version may write anything else.
    with pytest.raises(UnknownVersion):
        decode_entry(entry._replace(value=version + b" binary\0 header"))


@pytest.mark.parametrize("version", [b"0", b"02", b"1.1", b"-2", b"", b"two", b"9999999"])
def test_invalid_version_is_refused(version: bytes) -> None:
    entry = make_entry([b"{}"])
    with pytest.raises(BadEntry, match="header"):
        decode_entry(entry._replace(value=version + entry.value[1:]))


@given(lines_of_bytes, st.data())
def test_pieces_after_a_seq_are_the_lines_after_it(lines: list[bytes], data: st.DataObject) -> None:
    entry = check_entry(make_entry(lines))
    after = data.draw(st.integers(entry.first - 3, entry.last))
    max_bytes, max_lines = data.draw(st.integers(1, 100)), data.draw(st.integers(1, 9))
    pieces = list(split_lines(entry, Seq(after), max_bytes, max_lines))
    assert [line for piece in pieces for line in piece] == lines[max(0, after - entry.first + 1) :]
    for piece in pieces:
        assert 0 < len(piece) <= max_lines
        assert sum(map(len, piece[:-1])) <= max_bytes
