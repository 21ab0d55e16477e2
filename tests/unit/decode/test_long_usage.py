"""Long usages: accepted as short ones are, and refused for one reason without a pointer."""

import json

import pytest
from hypothesis import given, settings

from busyapi.decode.batch import BatchLimits, decode_batch
from busyapi.decode.incremental import run_to_completion
from busyapi.decode.limits import LONG_BYTES, MAX_DIGITS, TOO_DENSE, TOO_MANY_DIGITS
from busyapi.decode.long_usage import NUMBER_TOO_LARGE
from busyapi.decode.usage import decode_fast, decode_usage
from busyapi.errors import InvalidRequest, InvalidUsage, MalformedBody, ValidationError
from testkit.json_samples import USAGE, objects

PAD = b"x" * LONG_BYTES


def lengthen(raw: bytes) -> bytes:
    """Return an object with one more member."""
    inside = raw.strip(b" \r\n\t")[1:-1].rstrip(b" \r\n\t")
    return b"{" + inside + (b"," if inside else b"") + b'"pad":"' + PAD + b'"}'


@given(objects.map(str.encode))
@settings(max_examples=800)
def test_a_long_usage_is_accepted_as_a_short_one(raw: bytes) -> None:
    long = lengthen(raw)
    try:
        short_line = decode_usage(raw, strict=False)
    except InvalidRequest as error:
        with pytest.raises(type(error)):
            decode_usage(long, strict=False)
        return
    # The fast decoder refuses a value that a later one with the same name replaces.
    if decode_fast(raw.removeprefix(b"\xef\xbb\xbf"), strict=False) is None:
        return
    try:
        line = decode_usage(long, strict=False)
    except InvalidUsage as error:
        assert error.errors == [ValidationError("", TOO_MANY_DIGITS)]  # noqa: PT017
        assert b"9" * (MAX_DIGITS + 1) in raw
        return
    expected = json.loads(short_line)
    assert repr(json.loads(line)) == repr({**expected, "pad": PAD.decode()})


DEEP = b"[" * 60 + b"]" * 60


@pytest.mark.parametrize(
    ("more", "detail"),
    [
        (b"1e400", NUMBER_TOO_LARGE),
        (b'1e400,"x":1', NUMBER_TOO_LARGE),
        (b'[1e400,"\\ud83d\\ude00"]', NUMBER_TOO_LARGE),
        (b'["\\ud800",1e400]', NUMBER_TOO_LARGE),
        (b"9" * (MAX_DIGITS + 1), TOO_MANY_DIGITS),
        (b"[" + b"[]," * 3_000 + b"1]", TOO_DENSE),
    ],
)
def test_it_is_refused_for_one_reason(more: bytes, detail: str) -> None:
    raw = USAGE[:-1] + b',"x":' + more + b',"pad":"' + PAD + b'"}'
    for strict in (True, False):
        with pytest.raises(InvalidUsage) as caught:
            decode_usage(raw, strict=strict)
        assert caught.value.errors == [ValidationError("", detail)]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[" * 100_000, "nested deeper than 60 levels"),
        (b'{"a":' + DEEP + b',"b":"' + PAD + b'"}', "nested deeper than 60 levels"),
        (b"[" + b"[]," * 9_000 + b"1]", "is not a JSON object"),
        (b'["' + PAD + b'"]', "is not a JSON object"),
        (b"9" * 9_000, "is not a JSON object"),
        (b'{"a":1' + b"9" * 9_000, "is not JSON, at line 1"),
        (b'{"a":"' + PAD + b'"', "is not JSON, at line 1, column 8200"),
        (b'{\n"a":"' + PAD + b'",\n"b":01}', "is not JSON, at line 3, column"),
        (b'{"a":"' + PAD + b'","b":"\\x \\ud83d\\ude00"}', "is not JSON, at line 1"),
        (b'{"a":"' + PAD + b'\xff"}', "is not UTF-8"),
        (b'{"a":"' + PAD + b'\xff","b":1e400}', "is not UTF-8"),
        (b'{"a":"' + PAD + b'\xff","b":' + b"9" * 501 + b"}", "is not UTF-8"),
        (b'["\\ud800","' + PAD + b'"]', "is not a JSON object"),
        (b'{"a":"\\ud800' + PAD + b'","b":' + DEEP + b"}", "nested deeper than 60 levels"),
        (b'{"a":"\\ud800' + PAD + b'",\n"b":NaN}', "is not JSON, at line 2, column 5"),
        (b" " * 9_000, "is empty"),
    ],
)
def test_it_is_malformed_with_its_place(raw: bytes, message: str) -> None:
    with pytest.raises(MalformedBody, match=message):
        decode_usage(raw, strict=False)


def test_in_a_batch_it_is_an_error_of_its_item_unless_it_is_not_json() -> None:
    def decode(raw: bytes) -> list[bytes]:
        limits = BatchLimits(10, 65_536)
        work = decode_batch(b"[%b,%b]" % (USAGE, raw), ndjson=False, strict=True, limits=limits)
        return run_to_completion(work).lines

    start = USAGE[:-1] + b',"pad":"' + PAD + b'","x":'
    with pytest.raises(InvalidUsage) as caught:
        decode(start + b"1e400}")
    assert caught.value.errors == [ValidationError("/1", NUMBER_TOO_LARGE)]
    with pytest.raises(InvalidUsage) as caught:
        decode(start + b'["\\ud800",1e400]}')
    assert caught.value.errors == [ValidationError("/1", NUMBER_TOO_LARGE)]
    with pytest.raises(MalformedBody):
        decode(start + b'"\xff"}')


def test_rules_are_checked_as_of_a_short_one() -> None:
    with pytest.raises(InvalidUsage) as caught:
        decode_usage(b'{"medication":7,"pad":"' + PAD + b'"}', strict=True)
    assert [error.pointer for error in caught.value.errors] == [
        "/patientId",
        "/timestamp",
        "/medication",
    ]
