"""Numbers: whole ones are integers, and others keep their value."""

import json

import pytest

from busyapi.decode.limits import LONG_BYTES
from busyapi.decode.usage import decode_usage


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
    ],
)
def test_a_whole_number_is_an_integer_however_it_is_spelled(number: bytes, expected: bytes) -> None:
    raw = b'{"patientId":%b,"timestamp":%b,"medication":"m"}'
    for more in (b"", b"x" * LONG_BYTES):
        usage = raw[:-1] + b',"other":1.0,"pad":"' + more + b'"}'
        line = decode_usage(usage % (number, b"1.478009511e12"), strict=True)
        assert line == usage % (expected, b"1478009511000")
    # Lenient validation has no rules for these members.
    kept = json.loads(decode_usage(raw % (number, number), strict=False))["patientId"]
    assert kept == float(number)
