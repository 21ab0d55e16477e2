"""A batch of usages: all or nothing, and every invalid one is named."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busyapi.decode.batch import BatchLimits, decode_batch
from busyapi.decode.diagnose import MAX_ERRORS
from busyapi.decode.incremental import run_to_completion
from busyapi.decode.json_line import DEPTH_LIMIT
from busyapi.decode.usage import decode_usage
from busyapi.errors import InvalidRequest, InvalidUsage, MalformedBody, ValidationError
from testkit.json_samples import USAGE, bodies, objects, values

BAD = USAGE.replace(b"Albuterol", b"")
both = pytest.mark.parametrize("ndjson", [True, False], ids=["ndjson", "array"])


def pack(items: list[bytes], *, ndjson: bool) -> bytes:
    return b"\n".join(items) if ndjson else b"[" + b",".join(items) + b"]"


def decode_all(
    raw: bytes,
    *,
    ndjson: bool,
    strict: bool = True,
    max_items: int = 1000,
    max_item_bytes: int = 65_536,
) -> list[bytes]:
    limits = BatchLimits(max_items, max_item_bytes)
    work = decode_batch(raw, ndjson=ndjson, strict=strict, limits=limits)
    return run_to_completion(work).lines


def find_errors(
    raw: bytes, *, ndjson: bool, strict: bool = True, max_items: int = 1000
) -> list[ValidationError]:
    with pytest.raises(InvalidUsage) as caught:
        decode_all(raw, ndjson=ndjson, strict=strict, max_items=max_items)
    return caught.value.errors


def find_pointers(raw: bytes, *, ndjson: bool, strict: bool = True) -> list[str]:
    return [error.pointer for error in find_errors(raw, ndjson=ndjson, strict=strict)]


def decode_or_none(raw: bytes, *, strict: bool) -> bytes | None:
    try:
        return decode_usage(raw, strict=strict)
    except InvalidRequest:
        return None


@both
@given(items=st.lists(st.one_of(values, objects), min_size=1, max_size=5), strict=st.booleans())
@settings(max_examples=150)
def test_batch_is_accepted_exactly_if_each_of_its_items_is(
    ndjson: bool,  # noqa: FBT001
    items: list[str],
    strict: bool,  # noqa: FBT001
) -> None:
    # A newline between tokens is blank in an array and ends a line of NDJSON.
    raws = [text.replace("\n", " ").encode() for text in items]
    if strict:
        raws = [b"{%b,%b" % (USAGE[1:-1], b'"x":' + raw + b"}") for raw in raws]
    expected = [decode_or_none(raw, strict=strict) for raw in raws]
    bad = {index for index, line in enumerate(expected) if line is None}
    try:
        lines: list[bytes] | None = decode_all(
            pack(raws, ndjson=ndjson), ndjson=ndjson, strict=strict
        )
        named = set()
    except InvalidUsage as error:
        lines, named = None, {int(item_error.pointer.split("/")[1]) for item_error in error.errors}
    except MalformedBody:
        assert not ndjson
        lines, named = None, bad
    assert named == bad
    assert lines == (None if bad else expected)


@both
@given(raw=bodies | st.lists(bodies).map(b"\n".join) | st.lists(bodies).map(b",".join))
@settings(max_examples=150)
def test_any_bytes_give_lines_or_an_invalid_request(ndjson: bool, raw: bytes) -> None:  # noqa: FBT001
    for candidate in (raw, b"[" + raw + b"]"):
        try:
            lines = decode_all(candidate, ndjson=ndjson, strict=False)
        except InvalidRequest:
            continue
        assert lines
        for line in lines:
            assert b"\n" not in line
            assert type(json.loads(line)) is dict


@both
@pytest.mark.parametrize("count", [1, 2, 1000])
def test_usages_keep_the_order_in_which_they_were_sent(ndjson: bool, count: int) -> None:  # noqa: FBT001
    items = [USAGE.replace(b"100", b"%d" % index) for index in range(count)]
    assert decode_all(pack(items, ndjson=ndjson), ndjson=ndjson) == items


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n \n", b"  "])
@pytest.mark.parametrize("between", [b"\n", b"\r\n"])
def test_blank_lines_of_ndjson_do_not_count(between: bytes, end: bytes) -> None:
    for raw in (
        USAGE + between + USAGE + end,
        end + between + USAGE + between + end + between + USAGE + end,
    ):
        assert decode_all(raw, ndjson=True, max_items=2) == [USAGE, USAGE]


def test_a_million_blank_lines_do_not_count() -> None:
    blank = b"\n" * 500_000 + b"\n \t\r" * 100_000 + b" " * 500_000 + b"\n"
    assert decode_all(USAGE + blank + USAGE, ndjson=True, max_items=2) == [USAGE, USAGE]
    assert find_errors(USAGE + blank + USAGE + blank + USAGE, ndjson=True, max_items=2) == [
        ValidationError("", "must hold 1 to 2 usages")
    ]


def test_only_the_blanks_of_json_are_blank() -> None:
    assert find_pointers(USAGE + b"\n\x0c", ndjson=True) == ["/1"]


def test_an_index_counts_usages_and_not_lines() -> None:
    raw = b"\n" + USAGE + b"\n\n \n" + BAD
    assert find_pointers(raw, ndjson=True) == ["/1/medication"]


@both
def test_every_bad_item_is_named_by_index(ndjson: bool) -> None:  # noqa: FBT001
    items = [USAGE] * 9
    items[2], items[5], items[7] = b"[]", b"{}", BAD
    assert find_pointers(pack(items, ndjson=ndjson), ndjson=ndjson) == [
        "/2",
        "/5/patientId",
        "/5/timestamp",
        "/5/medication",
        "/7/medication",
    ]


def test_malformed_line_is_a_bad_item_and_the_rest_is_still_checked() -> None:
    items = [USAGE, b'{"a":', b"\xff", BAD, USAGE]
    assert find_errors(pack(items, ndjson=True), ndjson=True)[:2] == [
        ValidationError("/1", "is not JSON, at line 1, column 6"),
        ValidationError("/2", "is not UTF-8"),
    ]
    assert find_pointers(pack(items, ndjson=True), ndjson=True) == ["/1", "/2", "/3/medication"]


@pytest.mark.parametrize(
    "raw", [b"{}{}\n{\n}", b'{"a":[1\n2]},{}', b"{},{}\n{}", b"{\n}", b"[{}\n{}]"]
)
def test_broken_lines_cannot_add_up_to_usages(raw: bytes) -> None:
    assert find_pointers(raw, ndjson=True, strict=False)


@pytest.mark.parametrize("raw", [b"", b"[", b"[{}", b"[{}] x", b"[\xff]", b"[NaN]", b"[" * 100_000])
def test_array_that_is_malformed_as_a_whole_names_no_item(raw: bytes) -> None:
    with pytest.raises(MalformedBody):
        decode_all(raw, ndjson=False)


@pytest.mark.parametrize("raw", [b"{}", USAGE, b"null", b'"[]"'])
def test_json_that_is_no_array_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedBody, match="not a JSON array"):
        decode_all(raw, ndjson=False)


@pytest.mark.parametrize("raw", [b"", b"\n", b" \r\n\r\n"])
def test_no_lines_are_too_few(raw: bytes) -> None:
    assert find_errors(raw, ndjson=True) == [ValidationError("", "must hold 1 to 1000 usages")]


def test_empty_array_is_too_few() -> None:
    assert find_errors(b" [ ] ", ndjson=False) == [
        ValidationError("", "must hold 1 to 1000 usages")
    ]


@both
def test_the_maximum_is_accepted_and_one_more_is_not(ndjson: bool) -> None:  # noqa: FBT001
    assert len(decode_all(pack([USAGE] * 3, ndjson=ndjson), ndjson=ndjson, max_items=3)) == 3
    for extra in (USAGE, BAD, b"1e999"):
        raw = pack([USAGE] * 3 + [extra], ndjson=ndjson)
        assert find_errors(raw, ndjson=ndjson, max_items=3) == [
            ValidationError("", "must hold 1 to 3 usages")
        ]


@both
def test_errors_stop_at_the_maximum(ndjson: bool) -> None:  # noqa: FBT001
    pointers = find_pointers(pack([b"{}"] * 500, ndjson=ndjson), ndjson=ndjson)
    assert len(pointers) == MAX_ERRORS
    assert pointers[-1] == "/33/patientId"


@both
def test_value_that_cannot_be_stored_is_named_in_its_item(ndjson: bool) -> None:  # noqa: FBT001
    items = [USAGE, b'{"a":[1e999]}', b'{"patientId":"\\ud800"}']
    assert find_pointers(pack(items, ndjson=ndjson), ndjson=ndjson, strict=False) == [
        "/1/a/0",
        "/2/patientId",
    ]


@both
def test_item_nested_too_deep_is_named(ndjson: bool) -> None:  # noqa: FBT001
    deepest = b'{"a":' + b"[" * (DEPTH_LIMIT - 1) + b"]" * (DEPTH_LIMIT - 1) + b"}"
    deeper = b'{"a":' + deepest + b"}"
    raw = pack([deepest, deepest], ndjson=ndjson)
    assert decode_all(raw, ndjson=ndjson, strict=False) == [deepest, deepest]
    errors = find_errors(pack([deepest, deeper], ndjson=ndjson), ndjson=ndjson, strict=False)
    assert errors == [ValidationError("/1", "is nested deeper than 60 levels")]


@both
def test_implausible_times_are_named_by_index(ndjson: bool) -> None:  # noqa: FBT001
    seconds = USAGE.replace(b'"Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)"', b"1478009511")
    unset = USAGE.replace(b"Tue Nov 01 2016", b"Thu Jan 01 1970")
    items = [USAGE, seconds, USAGE, unset, *[USAGE] * 300, seconds]
    raw = b"\n" * ndjson + pack(items, ndjson=ndjson)
    for strict, expected in ((True, [1, 3, 304]), (False, [])):
        limits = BatchLimits(1000, 65_536)
        work = decode_batch(raw, ndjson=ndjson, strict=strict, limits=limits)
        batch = run_to_completion(work)
        assert (batch.lines, list(batch.implausible_times)) == (items, expected)


@both
def test_byte_order_mark_before_a_batch_is_skipped(ndjson: bool) -> None:  # noqa: FBT001
    raw = b"\xef\xbb\xbf" + pack([USAGE, USAGE], ndjson=ndjson)
    assert decode_all(raw, ndjson=ndjson) == [USAGE, USAGE]
