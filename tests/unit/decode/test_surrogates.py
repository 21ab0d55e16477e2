"""Unpaired surrogates: U+FFFD in free members, refused in the patient and the medication."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busyapi.decode.batch import BatchLimits, DecodedBatch, decode_batch
from busyapi.decode.incremental import run_to_completion
from busyapi.decode.limits import LONG_BYTES
from busyapi.decode.surrogates import mark_unpaired
from busyapi.decode.usage import decode_usage
from busyapi.errors import InvalidUsage, ValidationError
from testkit.json_samples import USAGE, replace_surrogates

PADS = (0, 600, LONG_BYTES)

_halves = ["\\ud83d", "\\ude00", "\\uDBFF", "\\uDFFF", "\\ud83d\\ude00"]
_others = ["\\\\", "\\n", "\\u00e9", "ud83d", "\u00e9", "\ufdd0", "\\uFDD1", "\\u0041", "a"]
_parts = st.sampled_from(_halves + _others)
texts = st.lists(_parts, max_size=12).map("".join)


@given(name=texts, text=texts, pad=st.sampled_from(PADS))
def test_free_members_have_the_replacement_character(name: str, text: str, pad: int) -> None:
    raw = f'{{"{name}":{{"{name}":["{text}"]}},"pad":"{"p" * pad}"}}'.encode()
    line = decode_usage(USAGE[:-1] + b"," + raw[1:], strict=True)
    expected = json.loads(USAGE) | replace_surrogates(json.loads(raw))
    assert json.loads(line.decode()) == expected


@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize("member", ["patientId", "medication"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_named_text_is_refused_and_not_changed(*, member: str, pad: int, strict: bool) -> None:
    usage = json.loads(USAGE) | {member: "x\ud800", "pad": "p" * pad}
    with pytest.raises(InvalidUsage) as caught:
        decode_usage(json.dumps(usage).encode(), strict=strict)
    detail = "holds an unpaired surrogate, which is not a character"
    assert caught.value.errors == [ValidationError(f"/{member}", detail)]
    # The replacement character itself is one as any other.
    usage[member], usage["other"] = "x\ufffd", "\ud800"
    line = decode_usage(json.dumps(usage).encode(), strict=strict)
    assert json.loads(line)[member] == "x\ufffd"


def decode_items(*usages: bytes) -> DecodedBatch:
    limits = BatchLimits(100, 65_536)
    raw = b"[" + b",".join(usages) + b"]"
    return run_to_completion(decode_batch(raw, ndjson=False, strict=True, limits=limits))


@pytest.mark.parametrize("pad", PADS)
def test_names_that_become_equal_are_one_member(pad: int) -> None:
    more = b',"\\ud800":1,"\\ufffd":[2,1e-400],"a":3,"pad":"%b"}' % (b"p" * pad)
    raw = USAGE[:-1] + more
    expected = USAGE[:-1] + ',"\ufffd":[2,1e-400],"a":3,'.encode() + more.rpartition(b",")[2]
    assert decode_usage(raw, strict=True) == expected
    assert decode_items(USAGE, raw).lines == [USAGE, expected]


@given(st.lists(st.sampled_from(range(6)), min_size=1, max_size=20))
def test_items_of_a_batch_do_not_depend_on_their_neighbours(choices: list[int]) -> None:
    cut = USAGE[:-1] + b',"x":"\\ud83d"}'
    usages = [
        *(USAGE, cut, cut.replace(b'"100"', b"1e2"), cut[:-1] + b',"y":1e-400}'),
        *(cut[:-1] + b',"y":1e400,"y":1}', cut.replace(b'"x"', b'"timestamp":1,"x"')),
    ]
    batch = decode_items(*(usages[choice] for choice in choices))
    assert batch.lines == [decode_usage(usages[choice], strict=True) for choice in choices]
    assert list(batch.implausible_times) == [at for at, choice in enumerate(choices) if choice == 5]
    named = USAGE.replace(b'"Albuterol"', b'"\\ud83d"')
    with pytest.raises(InvalidUsage) as caught:
        decode_items(*(usages[choice] for choice in choices), named)
    assert [error.pointer for error in caught.value.errors] == [f"/{len(choices)}/medication"]


def test_an_error_keeps_its_place() -> None:
    for pad in PADS:
        raw = b'{"a":"\\ud800","pad":"%b",\n"b":x}' % (b"p" * pad)
        with pytest.raises(Exception, match="at line 2, column 5"):
            decode_usage(raw, strict=False)


@pytest.mark.parametrize(
    "unit", [b"\\n", b"\\\\", b"\\ud800", b"\\ud83d\\ude00", b"\\u00e9", b"\\", b"\\ud8"]
)
def test_any_escapes_take_linear_time(unit: bytes) -> None:
    start = time.process_time()
    run_to_completion(mark_unpaired(unit * (500_000 // len(unit))))
    assert time.process_time() - start < 1
