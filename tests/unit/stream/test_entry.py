"""One stream entry: what a committer encodes a flusher decodes, and anything else it refuses."""

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


def stored(lines: list[bytes], received_ms: int = 1, last: int = 1000) -> Entry:
    fields = [b"u", encode_entry(lines, received_ms)]
    return parse_entry(b"%d-%d" % (last, len(lines)), fields)


@given(lines_of_bytes, times, last_seqs)
def test_decoded_is_what_was_encoded(lines: list[bytes], received_ms: int, last: int) -> None:
    found = stored(lines, received_ms, last)
    assert (found.first, found.last) == (last - len(lines) + 1, last)
    usages = decode_entry(found)
    assert usages.lines == lines
    assert usages.received_ms == received_ms


@given(lines_of_bytes, st.data())
def test_changed_byte_behind_the_header_is_refused(lines: list[bytes], data: st.DataObject) -> None:
    found = stored(lines)
    at = data.draw(st.integers(found.value.index(b"\n") + 1, len(found.value) - 1))
    other = data.draw(st.integers(0, 255))
    assume(other != found.value[at])
    changed = found.value[:at] + bytes([other]) + found.value[at + 1 :]
    with pytest.raises(BadEntry):
        decode_entry(found._replace(value=changed))


@given(lines_of_bytes, st.data())
def test_value_cut_short_is_refused(lines: list[bytes], data: st.DataObject) -> None:
    found = stored(lines)
    end = data.draw(st.integers(0, len(found.value) - 1))
    with pytest.raises(BadEntry):
        decode_entry(found._replace(value=found.value[:end]))


@given(st.binary(max_size=60))
def test_any_other_bytes_are_refused_or_read_never_worse(value: bytes) -> None:
    try:
        decode_entry(Entry(Seq(1), Seq(1), value))
    except (BadEntry, UnknownVersion):
        pass


@pytest.mark.parametrize("claimed", [1, 3])
def test_id_that_claims_another_number_of_usages_is_refused(claimed: int) -> None:
    found = parse_entry(b"10-%d" % claimed, [b"u", encode_entry([b"{}", b"{}"], 1)])
    with pytest.raises(BadEntry, match="count"):
        decode_entry(found)


def test_entry_without_fields_is_refused() -> None:
    with pytest.raises(BadEntry, match="header"):
        decode_entry(parse_entry(b"10-1", []))


@pytest.mark.parametrize("fields", [[b"v", b"x"], [b"u", b"1 1 0\n", b"more", b"y"]])
def test_entry_with_a_field_of_another_version_is_unknown_and_not_bad(fields: list[bytes]) -> None:
    with pytest.raises(UnknownVersion, match="seqs 10 to 10 has an unknown field"):
        decode_entry(parse_entry(b"10-1", fields))


@pytest.mark.parametrize("version", [b"2", b"10", b"999999"])
def test_other_version_is_unknown_and_not_bad(version: bytes) -> None:
    found = stored([b"{}"])
    with pytest.raises(UnknownVersion, match=f"has version {version.decode()}, and busyapi"):
        decode_entry(found._replace(value=version + found.value[1:]))
    # Whatever else such a version writes.
    with pytest.raises(UnknownVersion):
        decode_entry(found._replace(value=version + b" binary\0 header"))


@pytest.mark.parametrize("version", [b"0", b"02", b"1.1", b"-2", b"", b"two", b"9999999"])
def test_what_is_no_version_is_refused(version: bytes) -> None:
    found = stored([b"{}"])
    with pytest.raises(BadEntry, match="header"):
        decode_entry(found._replace(value=version + found.value[1:]))


@given(lines_of_bytes, st.data())
def test_pieces_behind_a_seq_are_the_lines_behind_it(
    lines: list[bytes], data: st.DataObject
) -> None:
    checked = check_entry(stored(lines))
    after = data.draw(st.integers(checked.first - 3, checked.last))
    most_bytes, most_lines = data.draw(st.integers(1, 100)), data.draw(st.integers(1, 9))
    found = list(split_lines(checked, Seq(after), most_bytes, most_lines))
    assert [line for piece in found for line in piece] == lines[max(0, after - checked.first + 1) :]
    for piece in found:
        assert 0 < len(piece) <= most_lines
        assert sum(map(len, piece[:-1])) <= most_bytes
