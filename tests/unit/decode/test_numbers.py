"""Numbers: whole ones are integers, and others keep their value."""

import json
import sys
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busyapi.decode.batch import BatchLimits, decode_batch
from busyapi.decode.incremental import run_to_completion
from busyapi.decode.json_line import MAX_DOUBLE_DIGITS
from busyapi.decode.limits import LONG_BYTES, TOO_MANY_DIGITS
from busyapi.decode.long_usage import NUMBER_TOO_LARGE
from busyapi.decode.usage import decode_usage
from busyapi.errors import InvalidUsage, ValidationError
from testkit.json_samples import USAGE

MAX_INTEGER = int(sys.float_info.max)
TOO_LARGE = "is a number beyond the range of a double"
PADS = (0, 300, 600, LONG_BYTES)
"""Bytes that make a usage take each way through the decoder."""


def make_usage(number: str, pad: int) -> bytes:
    return USAGE[:-1] + b',"x":[%b],"pad":"%b"}' % (number.encode(), b"p" * pad)


def decode_items(raw: bytes) -> list[bytes]:
    limits = BatchLimits(100, 65_536)
    work = decode_batch(raw, ndjson=False, strict=True, limits=limits)
    return run_to_completion(work).lines


@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize(
    "number",
    [
        *("0", "-1", str(2**53 + 1), str(2**64), "-" + "8" * 308, str(MAX_INTEGER)),
        *("3.141592653589793238462643383279", "0.1000000000000000055511151231257827"),
        *("1e-400", "-1e-400", "5e-324", "2.2250738585072011e-308", "1.25E+300", "0e999"),
        *("123456789012345678901234567890.5", "0." + "123456789" * 40, "1." + "0" * 400 + "1"),
    ],
)
def test_a_number_that_says_more_than_a_double_is_kept_as_sent(number: str, pad: int) -> None:
    raw = make_usage(number, pad)
    expected = Decimal(number)
    for line in (decode_usage(raw, strict=True), *decode_items(b"[%b,%b]" % (raw, raw))):
        assert json.loads(line, parse_float=Decimal, parse_int=Decimal)["x"] == [expected]


_digits = st.text("0123456789", min_size=1, max_size=30)
_numbers = st.builds(
    lambda sign, whole, fraction, exponent: f"{sign}{int(whole)}.{fraction}{exponent}",
    st.sampled_from(["", "-"]),
    _digits,
    _digits,
    st.one_of(st.just(""), st.integers(-420, 280).map(lambda power: f"e{power}")),
)


@given(number=_numbers, pad=st.sampled_from(PADS))
@settings(max_examples=300)
def test_a_number_keeps_its_double_and_all_its_digits_if_they_are_many(
    number: str, pad: int
) -> None:
    line = decode_usage(make_usage(number, pad), strict=True)
    assert json.loads(line)["x"] == [float(number)]
    if sum(map(str.isdigit, number.partition("e")[0])) > MAX_DOUBLE_DIGITS:
        assert json.loads(line, parse_float=Decimal)["x"] == [Decimal(number)]


BEYOND_DOUBLES = (
    *("1e999", "-1e999", "1e309", "1.7976931348623159e308", "9" * 400 + ".0"),
    *(str(MAX_INTEGER + 1), str(-MAX_INTEGER - 1), "9" * 309, "1" + "0" * 309),
)
MANY_DIGITS = "9" * 5000


@pytest.mark.parametrize(
    ("number", "pad", "error"),
    [
        *(
            (n, pad, ("/x/0", TOO_LARGE))
            for n in (*BEYOND_DOUBLES, MANY_DIGITS)
            for pad in PADS[:3]
        ),
        *((number, LONG_BYTES, ("", NUMBER_TOO_LARGE)) for number in BEYOND_DOUBLES),
        # A long usage has a limit on digits too.
        (MANY_DIGITS, LONG_BYTES, ("", TOO_MANY_DIGITS)),
    ],
)
def test_a_number_beyond_a_double_is_refused_integer_or_not(
    number: str, pad: int, error: tuple[str, str]
) -> None:
    raw = make_usage(number, pad)
    for strict in (True, False):
        with pytest.raises(InvalidUsage) as caught:
            decode_usage(raw, strict=strict)
        assert caught.value.errors == [error]
    with pytest.raises(InvalidUsage) as caught:
        decode_items(b"[%b,%b]" % (USAGE, raw))
    assert caught.value.errors == [ValidationError(f"/1{error[0]}", error[1])]


@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize("text", ["9" * 400, 'a\\"' + "9" * 400, "-" + "9" * 400 + "e"])
def test_digits_in_a_string_are_not_a_number(text: str, pad: int) -> None:
    raw = make_usage(f'"{text}"', pad)
    assert decode_usage(raw, strict=True) == raw


@pytest.mark.parametrize("pad", PADS)
def test_long_fractions_and_exponents_are_not_integers(pad: int) -> None:
    for number in ("0." + "9" * 320, "1e-" + "0" * 320 + "1", "1e+" + "0" * 320, "9" * 300 + "e5"):
        raw = make_usage(number, pad)
        assert decode_usage(raw, strict=True) == raw


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (b"100.0", b"100"),
        (b"1e2", b"100"),
        (b"1E+2", b"100"),
        (b"10000e-2", b"100"),
        (b"-1.50e2", b"-150"),
        (b"0.0", b"0"),
        (b"-0.0", b"0"),
        (b"-0", b"0"),
        (b"9007199254740991.0", b"9007199254740991"),
        (b"100.0000000000000000000", b"100"),
        (b"0e999", b"0"),
    ],
)
def test_a_whole_number_is_an_integer_however_it_is_spelled(number: bytes, expected: bytes) -> None:
    raw = b'{"patientId":%b,"timestamp":%b,"medication":"m"}'
    for more in (b"", b"x" * LONG_BYTES):
        usage = raw[:-1] + b',"other":1.0,"pad":"' + more + b'"}'
        sent = usage % (number, b"1.478009511e12")
        for line in (decode_usage(sent, strict=True), *decode_items(b"[%b,%b]" % (sent, sent))):
            assert line == usage % (expected, b"1478009511000")
    # Lenient validation has no rules for these members.
    kept = json.loads(decode_usage(raw % (number, number), strict=False))["patientId"]
    assert kept == float(number)


@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize(
    "number",
    [
        *("4503599627370497.3", "9007199254740991.4", "100.00000000000000000001"),
        *("1.00000000000000001", "1e-400", "1e-99999999999999999999"),
    ],
)
def test_a_patient_is_never_rounded_to_another_one(number: str, pad: int) -> None:
    assert float(number).is_integer()
    raw = make_usage("1", pad).replace(b'"patientId":"100"', b'"patientId":' + number.encode())
    with pytest.raises(InvalidUsage) as caught:
        decode_usage(raw, strict=True)
    assert [error.pointer for error in caught.value.errors] == ["/patientId"]
    with pytest.raises(InvalidUsage) as caught:
        decode_items(b"[%b,%b]" % (USAGE, raw))
    assert [error.pointer for error in caught.value.errors] == ["/1/patientId"]
