"""Bodies: JSON, NDJSON or form, compressed or not."""

import gzip
import json
import re
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busyapi.decode.body import read_batch, read_single
from busyapi.decode.form import MAX_FIELDS, form_to_json
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


def decode_single(
    body: bytes, kind: str = JSON, encoding: str = "", *, strict: bool = True, limit: int = 65_536
) -> bytes:
    return run_to_completion(read_single(body, kind, encoding, strict=strict, max_bytes=limit))


def decode_items(
    body: bytes, kind: str = JSON, encoding: str = "", *, limit: int = 65_536
) -> list[bytes]:
    steps = read_batch(
        body, kind, encoding, strict=True, max_bytes=limit, max_items=100, max_item_bytes=limit
    )
    return run_to_completion(steps).lines


@given(bodies | bodies.map(gzip.compress), types, encodings, st.booleans())
@settings(max_examples=300)
def test_any_request_gives_lines_or_an_invalid_request(
    body: bytes,
    kind: str,
    encoding: str,
    strict: bool,  # noqa: FBT001
) -> None:
    try:
        assert (
            type(json.loads(decode_single(body, kind, encoding, strict=strict, limit=200))) is dict
        )
    except InvalidRequest:
        pass
    try:
        assert decode_items(body, kind, encoding, limit=200)
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
    assert decode_single(USAGE, kind) == USAGE
    assert decode_items(b"[" + USAGE + b"]", kind) == [USAGE]
    for body in (b"", b"[]", b"nonsense", b"a=b"):
        with pytest.raises(MalformedBody):
            decode_single(body, kind)
        if body != b"[]":
            with pytest.raises(MalformedBody):
                decode_items(body, kind)


@pytest.mark.parametrize("kind", ["", FORM, "text/plain", "multipart/form-data", NDJSON, "?"])
@pytest.mark.parametrize("before", [b"", b" \t", b"\xef\xbb\xbf"])
def test_body_that_starts_as_an_object_is_json_whatever_its_type(kind: str, before: bytes) -> None:
    assert decode_single(before + USAGE, kind) == USAGE
    with pytest.raises(MalformedBody):
        decode_single(before + b"{nonsense", kind)
    assert decode_items(before + USAGE + b"\n" + USAGE, kind) == [USAGE, USAGE]


@pytest.mark.parametrize("kind", ["", FORM, "text/plain"])
def test_batch_that_starts_as_an_array_is_json_whatever_its_type(kind: str) -> None:
    assert decode_items(b" [" + USAGE + b"]", kind) == [USAGE]


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data", "application/xml", "?"])
@pytest.mark.parametrize("body", [b"", b"nonsense", b"<usage/>", b"a=b"])
def test_body_of_another_type_is_unsupported(kind: str, body: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        decode_single(body, kind)
    with pytest.raises(UnsupportedMediaType):
        decode_items(body, kind)


@pytest.mark.parametrize("kind", ["", "text/plain"])
def test_array_of_another_type_is_no_usage_and_unsupported(kind: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        decode_single(b"[]", kind)


def test_form_is_no_batch() -> None:
    with pytest.raises(UnsupportedMediaType):
        decode_items(b"patientId=100", FORM)


def test_ndjson_is_recognized_by_its_type() -> None:
    assert decode_items(USAGE + b"\n" + USAGE + b"\n", NDJSON + "; charset=utf-8") == [USAGE, USAGE]
    with pytest.raises(InvalidUsage) as caught:
        decode_items(b"nonsense\n" + USAGE, NDJSON)
    assert [error.pointer for error in caught.value.errors] == ["/0"]


def test_error_about_lines_sent_as_json_names_the_right_type() -> None:
    with pytest.raises(MalformedBody, match="at line 2"):
        decode_items(USAGE + b"\n" + USAGE, JSON)
    with pytest.raises(MalformedBody, match="application/x-ndjson"):
        decode_items(USAGE, JSON)


def test_form_fields_become_members() -> None:
    form = (
        b"patientId=100&timestamp=Tue+Nov+01+2016+09%3A11%3A51+GMT-0500+%28CDT%29"
        b"&medication=Albuterol&note=%C3%A9%26%22&empty="
    )
    assert json.loads(decode_single(form, FORM + "; charset=UTF-8")) == {
        "patientId": "100",
        "timestamp": "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",
        "medication": "Albuterol",
        "note": 'é&"',
        "empty": "",
    }


def test_form_as_curl_sends_it_unescaped_is_accepted() -> None:
    form = b"patientId=100&timestamp=Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)&medication=A\n"
    assert json.loads(decode_single(form, FORM))["medication"] == "A"


@pytest.mark.parametrize("form", ["{}&", "&{}", "{}&&", "{}&\r\n", "&&{}&&&"])
def test_nothing_between_separators_is_not_a_field(form: str) -> None:
    text = form.replace("{}", "a=1&&b=2").encode()
    assert json.loads(decode_single(text, FORM, strict=False)) == {"a": "1", "b": "2"}


def test_a_field_without_a_value_is_empty() -> None:
    form = b"patientId=100&flag&timestamp=2016-11-01T14:11:51Z&medication=A&other"
    usage = json.loads(decode_single(form, FORM))
    assert usage["flag"] == usage["other"] == ""


@pytest.mark.parametrize(
    "digits", ["1478009511000", "0", "-1", "8640000000000000", "-8640000000000000", "7" + "9" * 15]
)
def test_digits_of_a_timestamp_in_a_form_are_a_number(digits: str) -> None:
    form = f"patientId=100&timestamp={digits}&medication=1&other={digits}".encode()
    assert json.loads(decode_single(form, FORM)) == {
        "patientId": "100",
        "timestamp": int(digits),
        "medication": "1",
        "other": digits,
    }


@pytest.mark.parametrize(
    "text",
    ["8640000000000001", "-8640000000000001", "01", "+1", "1.0", "1e12", "1_0", "", "%D9%A1"],
)
def test_other_digits_of_a_timestamp_in_a_form_are_refused(text: str) -> None:
    with pytest.raises(InvalidUsage) as caught:
        decode_single(f"patientId=100&timestamp={text}&medication=1".encode(), FORM)
    assert [error.pointer for error in caught.value.errors] == ["/timestamp"]


def test_form_is_validated_like_json() -> None:
    with pytest.raises(InvalidUsage) as caught:
        decode_single(b"patientId=&timestamp=1478009511000.5", FORM)
    pointers = [error.pointer for error in caught.value.errors]
    assert pointers == ["/patientId", "/timestamp", "/medication"]


def test_error_about_a_form_speaks_of_a_form() -> None:
    for form in (b"patientId=&timestamp=1e12", b"a=1&a=2"):
        with pytest.raises(InvalidUsage, match="is a form, but not a usage") as caught:
            decode_single(form, FORM)
        for error in caught.value.errors:
            assert not re.search("JSON|string to|an integer", error.detail), error
    with pytest.raises(InvalidUsage, match="is JSON, but not a usage"):
        decode_single(b'{"patientId":""}', FORM)


@pytest.mark.parametrize("strict", [True, False])
def test_field_sent_twice_is_named(strict: bool) -> None:  # noqa: FBT001
    with pytest.raises(InvalidUsage) as caught:
        decode_single(b"a=1&b/c=1&d=1&b%2Fc=2&a=1", FORM, strict=strict)
    assert [error.pointer for error in caught.value.errors] == ["/a", "/b~1c"]


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"\n",
        b"nonsense",
        b"&",
        b"&&&",
        b"a&b",
        b"[1]",
        b'["a=b"]',
        b"a=%ff",
        b"a=\xff",
    ],
)
def test_invalid_form_is_malformed(form: bytes) -> None:
    with pytest.raises(MalformedBody):
        decode_single(form, FORM, strict=False)


_PARTS = st.lists(
    st.sampled_from(["a", "=", "+", "%", "%4", "%41", "%C3%A9", "%c3", "%zz", "é", "%26", "%00"]),
    max_size=6,
).map("".join)


@given(
    fields=st.lists(_PARTS, min_size=1, max_size=5),
    lengths=st.lists(st.integers(8_180, 8_200), max_size=3),
)
@settings(max_examples=300)
def test_form_is_read_as_the_standard_library_reads_it(
    fields: list[str], lengths: list[int]
) -> None:
    # Some values are longer than one step.
    fields += [
        f"{name}=" + "x" * (length % 3) + "%41" * length for name, length in enumerate(lengths)
    ]
    text = "&".join(fields)
    try:
        fields_read = dict(
            parse_qsl(text, keep_blank_values=True, errors="strict") if "=" in text else ()
        )
    except ValueError:
        fields_read = {}
    expected: object = fields_read or MalformedBody
    try:
        result: object = json.loads(run_to_completion(form_to_json(text.encode())))
    except MalformedBody:
        result = MalformedBody
    except InvalidUsage:
        names = [unquote(field.partition("=")[0].replace("+", " ")) for field in fields if field]
        assert len(set(names)) < len(names)
        return
    assert result == expected


def test_form_with_the_maximum_of_fields_is_accepted_and_one_more_is_not() -> None:
    fields = [b"f%d=" % number for number in range(MAX_FIELDS + 1)]
    assert len(json.loads(decode_single(b"&".join(fields[1:]), FORM, strict=False))) == MAX_FIELDS
    with pytest.raises(MalformedBody):
        decode_single(b"&".join(fields), FORM, strict=False)
    assert decode_single(b"&".join(fields[1:]) + b"&", FORM, strict=False)


@pytest.mark.parametrize("encoding", ["", "identity", "Identity", " identity "])
def test_identity_leaves_the_body_unchanged(encoding: str) -> None:
    assert decode_single(USAGE, JSON, encoding) == USAGE


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " gzip", "x-gzip"])
def test_gzip_is_decompressed(encoding: str) -> None:
    assert decode_single(gzip.compress(USAGE), JSON, encoding) == USAGE
    assert decode_items(gzip.compress(b"[" + USAGE + b"]"), JSON, encoding) == [USAGE]
    assert json.loads(decode_single(gzip.compress(b"a=b"), FORM, encoding, strict=False)) == {
        "a": "b"
    }


@pytest.mark.parametrize(
    "encoding", ["br", "zstd", "deflate", "gzip, gzip", "identity, gzip", "gzip,", "*", "gzip;q=1"]
)
def test_unknown_or_several_encodings_are_unsupported(encoding: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        decode_single(USAGE, JSON, encoding)
    with pytest.raises(UnsupportedMediaType):
        decode_items(b"[" + USAGE + b"]", JSON, encoding)


@pytest.mark.parametrize("kind", [JSON, FORM, "text/plain"])
def test_body_at_the_limit_is_accepted_and_one_byte_more_is_not(kind: str) -> None:
    array = b"[" + USAGE + b"]"
    assert decode_single(USAGE, kind, limit=len(USAGE)) == USAGE
    assert decode_items(array, kind, limit=len(array)) == [USAGE]
    with pytest.raises(BodyTooLarge):
        decode_single(USAGE, kind, limit=len(USAGE) - 1)
    with pytest.raises(BodyTooLarge):
        decode_items(array, kind, limit=len(array) - 1)


def test_limit_applies_to_the_decompressed_body_to_the_byte() -> None:
    padded = b" " * 5000 + USAGE
    packed = gzip.compress(padded)
    assert decode_single(packed, JSON, "gzip", limit=len(padded)) == USAGE
    with pytest.raises(BodyTooLarge):
        decode_single(packed, JSON, "gzip", limit=len(padded) - 1)


def test_limit_applies_to_the_compressed_body() -> None:
    packed = gzip.compress(b"{}", compresslevel=0)
    with pytest.raises(BodyTooLarge):
        decode_single(packed, JSON, "gzip", strict=False, limit=len(packed) - 1)
