"""One usage: the content that is accepted, and the errors about the rest."""

import json
import re

import pytest
from hypothesis import given, settings

from busyapi.decode.diagnose import MAX_ERRORS, MAX_POINTER_BYTES
from busyapi.decode.json_line import DEPTH_LIMIT
from busyapi.decode.limits import LONG_BYTES, MAX_DIGITS
from busyapi.decode.usage import decode_usage
from busyapi.errors import InvalidRequest, InvalidUsage, MalformedBody
from testkit.json_samples import (
    USAGE,
    NotReadable,
    bodies,
    can_be_stored,
    has_unpaired_patient_or_medication,
    parse_reference,
    replace_surrogates,
)

GOOD = {"patientId": "100", "timestamp": 1478009511000, "medication": "Albuterol"}


def make_body(**members: object) -> bytes:
    return json.dumps(GOOD | members, ensure_ascii=False).encode()


def find_errors(raw: bytes, *, strict: bool = True) -> dict[str, str]:
    with pytest.raises(InvalidUsage) as caught:
        decode_usage(raw, strict=strict)
    return dict(caught.value.errors)


def find_message(raw: bytes) -> str:
    with pytest.raises(MalformedBody) as caught:
        decode_usage(raw, strict=False)
    return str(caught.value)


@given(bodies)
@settings(max_examples=800)
def test_lenient_accepts_exactly_the_objects_that_can_be_stored(raw: bytes) -> None:
    try:
        value = parse_reference(raw)
        # Only numbers have so many digits here.
        has_long_number = len(raw) > LONG_BYTES and re.search(rb"[0-9]{%d}" % (MAX_DIGITS + 1), raw)
        expected = type(value) is dict and can_be_stored(value) and not has_long_number
        expected = expected and not has_unpaired_patient_or_medication(value)
    except NotReadable:
        expected = False
    try:
        line = decode_usage(raw, strict=False)
    except (MalformedBody, InvalidUsage):
        assert not expected
        return
    assert expected
    # repr also distinguishes 1 from 1.0 and True, -0.0 from 0.0, and the order of members.
    assert repr(json.loads(line)) == repr(replace_surrogates(value))


@given(bodies)
@settings(max_examples=150)
def test_decoded_line_decodes_to_itself(raw: bytes) -> None:
    try:
        line = decode_usage(raw, strict=False)
    except InvalidRequest:
        return
    assert b"\n" not in line
    assert b"\r" not in line
    assert decode_usage(line, strict=False) == line


@given(bodies)
@settings(max_examples=150)
def test_strict_returns_the_lenient_line_or_refuses(raw: bytes) -> None:
    member = USAGE[1:-1]
    for candidate in (raw, b"{" + member + b',"x":' + raw + b"}"):
        try:
            line = decode_usage(candidate, strict=True)
        except InvalidRequest:
            continue
        assert line == decode_usage(candidate, strict=False)


def test_usage_of_the_contract_is_kept_byte_for_byte() -> None:
    assert decode_usage(USAGE, strict=True) == USAGE


def test_other_members_are_kept_to_any_allowed_depth() -> None:
    raw = make_body(device={"model": "Ω", "log": [[1, 2.5, None], {"ok": True}]}, note="a\nb\u2028")
    assert json.loads(decode_usage(raw, strict=True)) == json.loads(raw)


def test_blanks_and_escapes_are_removed_and_the_value_stays() -> None:
    raw = b'\r\n { "patient\\u0049d" : 100 ,\n"timestamp":0,"medication":"\\u0041\\/b" } \t'
    expected = b'{"patientId":100,"timestamp":0,"medication":"A/b"}'
    assert decode_usage(raw, strict=True) == expected


def test_the_last_of_a_repeated_member_is_validated_and_kept() -> None:
    good_last = b'{"patientId":"","timestamp":0,"medication":"m","patientId":"100"}'
    bad_last = b'{"patientId":"100","timestamp":0,"medication":"m","patientId":""}'
    assert json.loads(decode_usage(good_last, strict=True))["patientId"] == "100"
    assert list(find_errors(bad_last)) == ["/patientId"]


def test_byte_order_mark_is_skipped() -> None:
    assert decode_usage(b"\xef\xbb\xbf" + USAGE, strict=True) == USAGE


@pytest.mark.parametrize(
    "patient", ["1", "x" * 128, "ä" * 128, "😀" * 128, 0, -1, 2**53 - 1, 1 - 2**53]
)
def test_patient_id_within_its_limits_is_accepted(patient: object) -> None:
    assert (
        json.loads(decode_usage(make_body(patientId=patient), strict=True))["patientId"] == patient
    )


@pytest.mark.parametrize(
    "patient",
    [
        "",
        "x" * 129,
        2**53,
        -(2**53),
        10**30,
        1.5,
        -0.5,
        2.0**53,
        True,
        False,
        None,
        [],
        {},
        ["100"],
    ],
)
def test_patient_id_outside_its_limits_is_named(patient: object) -> None:
    assert list(find_errors(make_body(patientId=patient))) == ["/patientId"]


@pytest.mark.parametrize("medication", ["m", "x" * 256, "😀" * 256])
def test_medication_within_its_limits_is_accepted(medication: str) -> None:
    line = decode_usage(make_body(medication=medication), strict=True)
    assert json.loads(line)["medication"] == medication


@pytest.mark.parametrize("medication", ["", "x" * 257, 1, True, None, [], {}])
def test_medication_outside_its_limits_is_named(medication: object) -> None:
    assert list(find_errors(make_body(medication=medication))) == ["/medication"]


@pytest.mark.parametrize(
    "timestamp", ["", "Wed Feb 30 2016 09:11:51 GMT-0500", 1.5, 1e16, True, None]
)
def test_timestamp_in_no_known_form_is_named(timestamp: object) -> None:
    assert list(find_errors(make_body(timestamp=timestamp))) == ["/timestamp"]


def test_all_errors_are_named_at_once() -> None:
    errors = find_errors(b'{"patientId":[],"medication":7,"x":{"y":[0,1e999]}}')
    assert list(errors) == ["/patientId", "/timestamp", "/medication", "/x/y/1"]
    assert errors["/timestamp"].startswith("is required: must be ")
    assert errors["/medication"] == "must be a string of 1 to 256 characters"
    assert errors["/x/y/1"] == "is a number beyond the range of a double"


def test_empty_object_is_a_usage_only_when_lenient() -> None:
    assert list(find_errors(b"{}")) == ["/patientId", "/timestamp", "/medication"]
    assert decode_usage(b" {} ", strict=False) == b"{}"


def test_pointer_is_escaped_as_in_rfc_6901() -> None:
    assert list(find_errors(b'{"a/b":{"m~n":[{"":1e999}]}}', strict=False)) == ["/a~1b/m~0n/0/"]


def test_pointer_stops_before_it_grows_too_long() -> None:
    name = b"n" * MAX_POINTER_BYTES
    errors = find_errors(b'{"a":{"' + name + b'":1e999}}', strict=False)
    assert list(errors) == ["/a"]


def test_errors_stop_at_the_maximum() -> None:
    raw = b'{"a":[' + b"1e999," * MAX_ERRORS + b"1e999]}"
    with pytest.raises(InvalidUsage) as caught:
        decode_usage(raw, strict=True)
    pointers = [error.pointer for error in caught.value.errors]
    assert len(pointers) == MAX_ERRORS
    assert pointers[:4] == ["/patientId", "/timestamp", "/medication", "/a/0"]
    assert pointers[-1] == f"/a/{MAX_ERRORS - 4}"


@pytest.mark.parametrize("padding", ["", "x" * 200])
@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]")])
def test_nesting_is_accepted_up_to_the_limit(opening: str, closing: str, padding: str) -> None:
    def make_nested(levels: int) -> bytes:
        inner = levels - 1  # the usage itself is the first level
        return f'{{"p":"{padding}","a":{opening * inner}1{closing * inner}}}'.encode()

    assert decode_usage(make_nested(DEPTH_LIMIT), strict=False) == make_nested(DEPTH_LIMIT)
    assert find_message(make_nested(DEPTH_LIMIT + 1)) == "The body is nested deeper than 60 levels."


@pytest.mark.parametrize("unit", [b"[", b'{"a":', b'{"a":['])
def test_nesting_beyond_any_stack_is_refused(unit: bytes) -> None:
    assert find_message(unit * 100_000) == "The body is nested deeper than 60 levels."


def test_brackets_in_strings_and_side_by_side_are_no_nesting() -> None:
    raw = json.dumps({"s": "[{" * 100, "wide": [[], {}] * 100}, separators=(",", ":")).encode()
    assert decode_usage(raw, strict=False) == raw


@pytest.mark.parametrize(
    "raw", [b"\xff", b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"\xc0\x80":1}']
)
def test_body_that_is_not_utf_8_is_malformed(raw: bytes) -> None:
    assert find_message(raw) == "The body is not UTF-8."


def test_invalid_utf_8_in_an_unknown_member_is_malformed() -> None:
    with pytest.raises(MalformedBody):
        decode_usage(USAGE[:-1] + b',"x":"\xff"}', strict=True)


@pytest.mark.parametrize("raw", [b"[]", b"null", b"1", b'"{}"', b"true", b"[{}]"])
def test_json_that_is_no_object_is_malformed(raw: bytes) -> None:
    assert find_message(raw) == "The body is not a JSON object."


@pytest.mark.parametrize("raw", [b"", b" \r\n\t", b"\xef\xbb\xbf"])
def test_empty_body_is_malformed(raw: bytes) -> None:
    assert find_message(raw) == "The body is empty."


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_number_that_only_python_writes_is_malformed(number: bytes) -> None:
    assert find_message(b'{"a":' + number + b"}").startswith("The body is not JSON")


@pytest.mark.parametrize(
    "raw",
    [
        b"{} x",
        b"{}{}",
        b"{}\x00",
        b"{},",
        b'{"a":1',
        b'{"a":1,}',
        b"{'a':1}",
        b"{a:1}",
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":1.}',
        b'{"a":1e}',
        b'{"a":0x1}',
        b'{"a":"\n"}',
        b'{"a":"\x00"}',
        b'{"a":"\\x"}',
        b'{"a":"\\u12g4"}',
        b"{}//",
        b"\x0c{}",
        b"\xc2\xa0{}",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        "{}".encode("utf-16-be"),
    ],
)
def test_body_that_is_not_json_is_malformed(raw: bytes) -> None:
    assert find_message(raw).startswith("The body is not JSON, at line 1, column ")


def test_error_about_a_malformed_body_names_the_place() -> None:
    assert find_message(b'{"a":1,\n"b":x}') == "The body is not JSON, at line 2, column 5."
