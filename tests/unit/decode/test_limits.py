"""Limits on the content of a body by its size, and decoding in steps, which changes nothing."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busyapi.decode import split
from busyapi.decode.batch import BatchLimits, decode_batch
from busyapi.decode.form import form_to_json
from busyapi.decode.incremental import run_to_completion
from busyapi.decode.limits import (
    BYTES_PER_CONTAINER,
    FREE_CONTAINERS,
    LONG_BYTES,
    MAX_DIGITS,
    MAX_EXPONENTS,
    MAX_KEPT_FRACTIONS,
    MAX_SLOW_NUMBERS,
    MAX_STEP_BYTES,
    TOO_DENSE,
    TOO_MANY_DIGITS,
    TOO_MANY_KEPT_FRACTIONS,
    TOO_MANY_SLOW_NUMBERS,
    count_containers,
    scan_numbers,
)
from busyapi.decode.usage import decode_usage, read_usage
from busyapi.errors import InvalidRequest, InvalidUsage, MalformedBody, ValidationError
from testkit.json_samples import USAGE, bodies, objects

Outcome = list[bytes] | list[ValidationError] | type[InvalidRequest]


def decode_array(raw: bytes, *, max_item_bytes: int = 65_536, max_items: int = 10_000) -> Outcome:
    """Return the lines of an array, its validation errors, or the kind of another error."""
    try:
        work = decode_batch(
            raw, ndjson=False, strict=False, limits=BatchLimits(max_items, max_item_bytes)
        )
        return run_to_completion(work).lines
    except InvalidUsage as error:
        return error.errors
    except InvalidRequest as error:
        return type(error)


def pack(items: list[bytes], between: bytes = b",") -> bytes:
    return b"[" + between.join(items) + b"]"


@given(
    items=st.lists(objects.map(str.encode), min_size=1, max_size=8),
    between=st.sampled_from([b",", b", ", b",\n", b" ,\r\n  "]),
    more=st.integers(0, 40),
)
@settings(max_examples=200)
def test_an_array_decoded_in_pieces_equals_the_whole(
    items: list[bytes], between: bytes, more: int
) -> None:
    items = [items[index % len(items)] for index in range(len(items) + more)]
    raw = pack(items, between)
    # The maximum size of a usage also bounds a piece.
    assert decode_array(raw, max_item_bytes=max(map(len, items))) == decode_array(raw)


@given(raw=bodies | st.lists(bodies, max_size=6).map(pack))
@settings(max_examples=300)
def test_an_array_split_item_by_item_equals_the_array_split_at_once(raw: bytes) -> None:
    at_once = decode_array(raw, max_item_bytes=65_535)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "_ONE_CALL_BYTES", 0)
        patch.setattr("busyapi.decode.batch.decode_array_fast", _decode_nothing)
        one_by_one = decode_array(raw, max_item_bytes=65_535)
    assert one_by_one == at_once


def _decode_nothing(*_: object, **__: object) -> object:
    yield from ()


@pytest.mark.parametrize(
    "inside",
    [b'{"b":1},{"a":2}', b'"},{\\"a\\":"', b'[{"a":[]},{"a":[]},{"a":{}}]', b'{"a":{"a":{"a":1}}}'],
)
def test_text_like_the_end_of_a_usage_does_not_end_it(inside: bytes) -> None:
    items = [b'{"a":[' + inside + b"]}"] * 2_000
    assert decode_array(pack(items)) == items


@pytest.mark.parametrize("end", [b",]", b"},]", b"]]", b"", b"],", b"]x"])
def test_an_array_with_a_wrong_end_is_malformed_however_long(end: bytes) -> None:
    for count in (1, 2_000):
        assert decode_array(pack([USAGE] * count)[:-1] + end) is MalformedBody


@pytest.mark.parametrize("wrong", [b"{} {}", b"{}}", b'{"a":1', b"{}]", b'"\\x"', b"1 2", b"NaN"])
@pytest.mark.parametrize("count", [1, 20_000])
def test_an_array_with_a_wrong_middle_is_malformed_however_long(wrong: bytes, count: int) -> None:
    raw = pack([*[USAGE] * (count // 2), wrong, *[USAGE] * (count // 2)])
    assert decode_array(raw, max_items=50_000) is MalformedBody


def test_the_place_of_an_error_is_counted_in_the_whole_body() -> None:
    raw = pack([USAGE] * 20_000, b",\n").replace(b"100", b"x", 2).replace(b"x", b"100", 1)
    wrong = raw.replace(b'"x"', b"x", 1)
    with pytest.raises(MalformedBody, match=r"at line 2, column 14\.$"):
        run_to_completion(
            decode_batch(wrong, ndjson=False, strict=True, limits=BatchLimits(50_000, 65_536))
        )


def make_dense(containers: int, size: int) -> bytes:
    """Return a usage of this size with this number of containers inside it."""
    arrays = b",".join([b"[]"] * (containers - 1))
    start = b'{"a":[' + arrays + b'],"b":"'
    return start + b"x" * (size - len(start) - 2) + b'"}'


@pytest.mark.parametrize("size", [1_600, 8_000, 65_000])
def test_a_usage_with_the_maximum_of_containers_is_accepted_and_one_more_is_not(size: int) -> None:
    max_containers = FREE_CONTAINERS + size // BYTES_PER_CONTAINER
    accepted, refused = make_dense(max_containers, size), make_dense(max_containers + 1, size)
    assert decode_usage(accepted, strict=False) == accepted
    with pytest.raises(InvalidUsage) as caught:
        decode_usage(refused, strict=False)
    assert caught.value.errors == [ValidationError("", TOO_DENSE)]
    assert decode_array(pack([accepted, USAGE])) == [accepted, USAGE]
    # The whole is within its limit, so the error names the usage.
    assert decode_array(pack([refused, USAGE * 1, USAGE, USAGE])) == [
        ValidationError("/0", TOO_DENSE)
    ]


@pytest.mark.parametrize(
    ("number", "slow", "exponents"),
    [
        (b"1e300", 1, 1),
        (b"1E+300", 1, 1),
        (b"1.5e-0300", 1, 1),
        (b"-1e99", 0, 1),
        (b"1e+22", 0, 1),
        (b"1e5", 0, 0),
        (b"300", 0, 0),
        (b"1.7976931348623157E308", 1, 1),
        (b"35543994774517951114e99", 1, 1),
        (b"0.3554399477451795111", 1, 0),
        (b"35543994774.51795111", 0, 0),
        (b"1478009511000000000", 0, 0),
    ],
)
def test_slow_numbers_are_counted(number: bytes, slow: int, exponents: int) -> None:
    raw = b'{"medication":"Albuterol","value":[' + b",".join([number] * 7) + b"]}"
    numbers = scan_numbers(raw)
    assert (numbers.slow, numbers.exponents) == (7 * slow, 7 * exponents)


def check_limit(accepted: bytes, refused: bytes, detail: str) -> None:
    """Check that one usage is at a limit and the other beyond it, alone and in a batch."""
    line = decode_usage(accepted, strict=False)
    assert json.loads(line) == json.loads(accepted)
    with pytest.raises(InvalidUsage) as caught:
        decode_usage(refused, strict=False)
    assert caught.value.errors == [ValidationError("", detail)]
    assert decode_array(pack([accepted, accepted])) == [line, line]
    assert decode_array(pack([USAGE, refused])) == [ValidationError("/1", detail)]


@pytest.mark.parametrize(
    ("number", "most"),
    [
        (b"1e300", MAX_SLOW_NUMBERS),
        (b"10.0E0299", MAX_SLOW_NUMBERS),
        (b"4.9e-324", MAX_SLOW_NUMBERS),
        (b"0e300", MAX_SLOW_NUMBERS),
        (b"35543994774517951114e9", MAX_SLOW_NUMBERS),
        (b"1e23", MAX_EXPONENTS),
    ],
)
def test_a_long_usage_with_too_many_slow_numbers_is_refused(number: bytes, most: int) -> None:
    def make(count: int) -> bytes:
        return b'{"a":[%b],"b":"%b"}' % (b",".join([number] * count), b"x" * LONG_BYTES)

    check_limit(make(most), make(most + 1), TOO_MANY_SLOW_NUMBERS)
    # A short usage may hold as many as fit.
    short = b'{"a":[' + b",".join([number] * min(most + 200, LONG_BYTES // 25)) + b"]}"
    assert len(short) < LONG_BYTES
    line = decode_usage(short, strict=False)
    assert json.loads(line) == json.loads(short)
    assert decode_array(pack([short] * 5)) == [line] * 5


@pytest.mark.parametrize("number", [b"1.5", b"1E5", b"0.125"])
@pytest.mark.parametrize("other", [b"1e300", b"5e-324", b"0.1234567890123456789"])
def test_a_long_usage_with_too_many_fractions_beside_a_number_beyond_doubles_is_refused(
    number: bytes, other: bytes
) -> None:
    """`parse_number` reads each fraction: of 64 KiB, without a break, for 4 ms."""

    def make(count: int, other: bytes = other) -> bytes:
        # Points in texts do not count.
        return b'{"a":[%b],"b":"%b"}' % (b",".join([*[number] * count, other]), b".1" * LONG_BYTES)

    most = MAX_KEPT_FRACTIONS - 1
    check_limit(make(most), make(most + 1), TOO_MANY_KEPT_FRACTIONS)
    many = make(most + 1, b"12")
    assert json.loads(decode_usage(many, strict=False)) == json.loads(many)


@pytest.mark.parametrize("before", [b"0.", b"-0.", b"1e"])
@pytest.mark.parametrize("others", [0, 63, 64, 65])
def test_a_long_usage_with_a_number_of_too_many_digits_is_refused(
    before: bytes, others: int
) -> None:
    """`others`: digits of other numbers, of which some alone make a closer look necessary."""

    def make(digits: int) -> bytes:
        digits -= before.count(b"0")
        number = before + (b"0" if before == b"1e" else b"9") * digits
        rest = b'"x":1%b,"b":"%b"' % (b"0" * others, b"x" * LONG_BYTES)
        return b'{"a":[%b],%b}' % (number, rest)

    refused = make(MAX_DIGITS + 1)
    check_limit(make(MAX_DIGITS), refused, TOO_MANY_DIGITS)
    short = refused.replace(b"x" * LONG_BYTES, b"x")
    assert decode_array(pack([short])) == [decode_usage(short, strict=False)]


@pytest.mark.parametrize("text", [b"9" * 70_000, b"1e300" * 2_000, b'\\"9' + b"9" * 600])
def test_digits_in_strings_are_no_numbers(text: bytes) -> None:
    raw = b'{"a":"%b","b":"%b"}' % (text, b"x" * LONG_BYTES)
    assert decode_usage(raw, strict=False) == raw
    assert decode_array(pack([raw, raw]), max_item_bytes=100_000) == [raw, raw]


def test_a_batch_of_too_many_containers_is_refused_as_a_whole() -> None:
    assert decode_array(pack([make_dense(300, 1_600)] * 1_000)) == [ValidationError("", TOO_DENSE)]


def test_brackets_in_strings_are_no_containers() -> None:
    text = json.dumps({"a": "[{" * 20_000, "b": '"[' * 100, "c\\[": "\\["}, separators=(",", ":"))
    raw = text.encode()
    assert count_containers(raw) == 1
    assert decode_usage(raw, strict=False) == raw
    assert decode_array(pack([raw] * 3)) == [raw] * 3
    assert count_containers(b'{"' + b'\\"[' * 1_000) == 1


@pytest.mark.parametrize("ndjson", [True, False])
def test_a_usage_of_a_batch_has_the_size_limit_of_a_single_one(ndjson: bool) -> None:  # noqa: FBT001
    small, large = make_dense(1, 1_000), make_dense(1, 1_001)
    raw = b"\n".join([small, large, small]) if ndjson else pack([small, large, small])
    for strict in (True, False):
        with pytest.raises(InvalidUsage) as caught:
            run_to_completion(
                decode_batch(raw, ndjson=ndjson, strict=strict, limits=BatchLimits(10, 1_000))
            )
        assert ValidationError("/1", "is larger than 1000 bytes") in caught.value.errors


@pytest.mark.parametrize("ndjson", [True, False])
@pytest.mark.parametrize("inside", [b'"x":[]', b'"x":[[],{}],"y":[{"a":1},{"a":2}]', b'"x":"]},{"'])
def test_a_long_batch_is_read_in_steps(ndjson: bool, inside: bytes) -> None:  # noqa: FBT001
    items = [USAGE[:-1] + b"," + inside + b"}"] * 5_000
    raw = b"\n".join(items) if ndjson else pack(items)
    work = decode_batch(raw, ndjson=ndjson, strict=True, limits=BatchLimits(10_000, 65_536))
    steps = sum(1 for _ in work)
    assert steps >= len(raw) // MAX_STEP_BYTES


def test_a_short_batch_is_read_in_one_step() -> None:
    work = decode_batch(
        pack([USAGE] * 100), ndjson=False, strict=True, limits=BatchLimits(100, 65_536)
    )
    assert list(work) == []


def test_a_long_usage_is_read_in_steps() -> None:
    inside = b"[[1]]," * 500
    for size, steps in ((LONG_BYTES, 0), (LONG_BYTES + 1, 4)):
        raw = b'{"x":[%b1],"y":"%b"}' % (inside, b"x" * (size - len(inside) - 16))
        assert len(raw) == size
        assert sum(1 for _ in read_usage(raw, strict=False)) == steps
        assert decode_usage(raw, strict=False) == raw


@pytest.mark.parametrize("ndjson", [True, False])
def test_items_that_the_fast_decoder_refuses_are_read_in_smaller_steps(*, ndjson: bool) -> None:
    usage = b'{"x":[%b1],"y":1e400,"y":1}' % (b"1," * 3_000)
    items = [usage] * 10
    raw = b"\n".join(items) if ndjson else pack(items)
    work = decode_batch(raw, ndjson=ndjson, strict=False, limits=BatchLimits(10, 65_536))
    assert sum(1 for _ in work) >= len(items) - 1


def test_a_long_form_is_read_in_steps() -> None:
    for form in (b"&".join(b"f%d=" % n + b"%41" * 20 for n in range(990)), b"f=" + b"%41" * 20_000):
        steps = sum(1 for _ in form_to_json(form))
        assert steps >= len(form) // MAX_STEP_BYTES * 4
