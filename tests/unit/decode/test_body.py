"""Bodies: which of JSON, NDJSON and form they are, packed or not."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busyapi.decode.body import read_batch, read_single
from busyapi.decode.form import MAX_FIELDS
from busyapi.decode.incremental import run_to_completion
from busyapi.errors import (
    BodyTooLarge,
    InvalidRequest,
    InvalidUsage,
    MalformedBody,
    UnsupportedMediaType,
)
from testkit.json_samples import USAGE, bodies

JSON = "application/json"
NDJSON = "application/x-ndjson"
FORM = "application/x-www-form-urlencoded"
types = st.sampled_from(["", JSON, NDJSON, FORM, "text/plain", "application/ld+json", ";", "é/é"])
encodings = st.sampled_from(["", "identity", "gzip", "x-gzip", "br", "gzip, gzip", ","])


def single(
    body: bytes, kind: str = JSON, encoding: str = "", *, strict: bool = True, limit: int = 65_536
) -> bytes:
    return run_to_completion(read_single(body, kind, encoding, strict=strict, max_bytes=limit))


def batch(body: bytes, kind: str = JSON, encoding: str = "", *, limit: int = 65_536) -> list[bytes]:
    steps = read_batch(
        body, kind, encoding, strict=True, max_bytes=limit, max_items=100, max_item_bytes=limit
    )
    return run_to_completion(steps)


@given(bodies | bodies.map(gzip.compress), types, encodings, st.booleans())
@settings(max_examples=300)
def test_any_request_gives_lines_or_a_bad_usage(
    body: bytes,
    kind: str,
    encoding: str,
    strict: bool,  # noqa: FBT001
) -> None:
    try:
        assert type(json.loads(single(body, kind, encoding, strict=strict, limit=200))) is dict
    except InvalidRequest:
        pass
    try:
        assert batch(body, kind, encoding, limit=200)
    except InvalidRequest:
        pass


@pytest.mark.parametrize(
    "kind",
    [
        JSON,
        "application/json; charset=utf-8",
        "APPLICATION/JSON;charset=UTF-8",
        " application/json ; x=y",
        "application/vnd.inhaler.v2+json",
        "text/json",
    ],
)
def test_json_type_is_read_as_json(kind: str) -> None:
    assert single(USAGE, kind) == USAGE
    assert batch(b"[" + USAGE + b"]", kind) == [USAGE]
    for body in (b"", b"[]", b"nonsense", b"a=b"):
        with pytest.raises(MalformedBody):
            single(body, kind)
        if body != b"[]":
            with pytest.raises(MalformedBody):
                batch(body, kind)


@pytest.mark.parametrize("kind", ["", FORM, "text/plain", "multipart/form-data", NDJSON, "?"])
@pytest.mark.parametrize("before", [b"", b" \t", b"\xef\xbb\xbf"])
def test_body_that_starts_as_an_object_is_json_whatever_its_type_says(
    kind: str, before: bytes
) -> None:
    assert single(before + USAGE, kind) == USAGE
    with pytest.raises(MalformedBody):
        single(before + b"{nonsense", kind)
    assert batch(before + USAGE + b"\n" + USAGE, kind) == [USAGE, USAGE]


@pytest.mark.parametrize("kind", ["", FORM, "text/plain"])
def test_batch_that_starts_as_an_array_is_one_whatever_its_type_says(kind: str) -> None:
    assert batch(b" [" + USAGE + b"]", kind) == [USAGE]


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data", "application/xml", "?"])
@pytest.mark.parametrize("body", [b"", b"nonsense", b"<usage/>", b"a=b"])
def test_body_of_another_type_is_unsupported(kind: str, body: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        single(body, kind)
    with pytest.raises(UnsupportedMediaType):
        batch(body, kind)


@pytest.mark.parametrize("kind", ["", "text/plain"])
def test_array_of_another_type_is_no_usage_and_unsupported(kind: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        single(b"[]", kind)


def test_form_is_no_batch() -> None:
    with pytest.raises(UnsupportedMediaType):
        batch(b"patientId=100", FORM)


def test_ndjson_is_told_by_its_type() -> None:
    assert batch(USAGE + b"\n" + USAGE + b"\n", NDJSON + "; charset=utf-8") == [USAGE, USAGE]
    with pytest.raises(InvalidUsage) as caught:
        batch(b"nonsense\n" + USAGE, NDJSON)
    assert [fault.pointer for fault in caught.value.errors] == ["/0"]


def test_lines_sent_as_json_are_told_the_right_type() -> None:
    with pytest.raises(MalformedBody, match="at line 2"):
        batch(USAGE + b"\n" + USAGE, JSON)
    with pytest.raises(MalformedBody, match="application/x-ndjson"):
        batch(USAGE, JSON)


def test_form_fields_become_members() -> None:
    form = (
        b"patientId=100&timestamp=Tue+Nov+01+2016+09%3A11%3A51+GMT-0500+%28CDT%29"
        b"&medication=Albuterol&note=%C3%A9%26%22&empty="
    )
    assert json.loads(single(form, FORM + "; charset=UTF-8")) == {
        "patientId": "100",
        "timestamp": "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",
        "medication": "Albuterol",
        "note": 'é&"',
        "empty": "",
    }


def test_form_as_curl_sends_it_unescaped_is_taken() -> None:
    form = b"patientId=100&timestamp=Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)&medication=A\n"
    assert json.loads(single(form, FORM))["medication"] == "A"


def test_form_is_validated_like_json() -> None:
    with pytest.raises(InvalidUsage) as caught:
        single(b"patientId=&timestamp=1478009511000", FORM)
    found = [fault.pointer for fault in caught.value.errors]
    assert found == ["/patientId", "/timestamp", "/medication"]


@pytest.mark.parametrize("strict", [True, False])
def test_field_sent_twice_is_named(strict: bool) -> None:  # noqa: FBT001
    with pytest.raises(InvalidUsage) as caught:
        single(b"a=1&b/c=1&d=1&b%2Fc=2&a=1", FORM, strict=strict)
    assert [fault.pointer for fault in caught.value.errors] == ["/a", "/b~1c"]


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"\n",
        b"nonsense",
        b"a=1&b",
        b"&",
        b"[1]",
        b'["a=b"]',
        b"a=%ff",
        b"a=\xff",
        b"a=1&",
    ],
)
def test_what_is_no_form_is_malformed(form: bytes) -> None:
    with pytest.raises(MalformedBody):
        single(form, FORM, strict=False)


def test_form_of_the_most_fields_is_taken_and_one_more_is_not() -> None:
    fields = [b"f%d=" % number for number in range(MAX_FIELDS + 1)]
    assert len(json.loads(single(b"&".join(fields[1:]), FORM, strict=False))) == MAX_FIELDS
    with pytest.raises(MalformedBody):
        single(b"&".join(fields), FORM, strict=False)


@pytest.mark.parametrize("encoding", ["", "identity", "Identity", " identity "])
def test_identity_is_as_it_is(encoding: str) -> None:
    assert single(USAGE, JSON, encoding) == USAGE


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " gzip", "x-gzip"])
def test_gzip_is_inflated(encoding: str) -> None:
    assert single(gzip.compress(USAGE), JSON, encoding) == USAGE
    assert batch(gzip.compress(b"[" + USAGE + b"]"), JSON, encoding) == [USAGE]
    assert json.loads(single(gzip.compress(b"a=b"), FORM, encoding, strict=False)) == {"a": "b"}


@pytest.mark.parametrize(
    "encoding", ["br", "zstd", "deflate", "gzip, gzip", "identity, gzip", "gzip,", "*", "gzip;q=1"]
)
def test_unknown_or_several_encodings_are_unsupported(encoding: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        single(USAGE, JSON, encoding)
    with pytest.raises(UnsupportedMediaType):
        batch(b"[" + USAGE + b"]", JSON, encoding)


@pytest.mark.parametrize("kind", [JSON, FORM, "text/plain"])
def test_body_of_the_limit_is_taken_and_one_byte_more_is_not(kind: str) -> None:
    array = b"[" + USAGE + b"]"
    assert single(USAGE, kind, limit=len(USAGE)) == USAGE
    assert batch(array, kind, limit=len(array)) == [USAGE]
    with pytest.raises(BodyTooLarge):
        single(USAGE, kind, limit=len(USAGE) - 1)
    with pytest.raises(BodyTooLarge):
        batch(array, kind, limit=len(array) - 1)


def test_limit_holds_for_the_inflated_body_to_the_byte() -> None:
    padded = b" " * 5000 + USAGE
    packed = gzip.compress(padded)
    assert single(packed, JSON, "gzip", limit=len(padded)) == USAGE
    with pytest.raises(BodyTooLarge):
        single(packed, JSON, "gzip", limit=len(padded) - 1)


def test_limit_holds_for_the_packed_body() -> None:
    packed = gzip.compress(b"{}", compresslevel=0)
    with pytest.raises(BodyTooLarge):
        single(packed, JSON, "gzip", strict=False, limit=len(packed) - 1)
