"""The ids accepted from a request, and those generated."""

import re
from itertools import pairwise

import pytest

from busyapi.web.request_id import accept_or_generate, generate

GENERATED = re.compile(r"[0-9a-f]{20}")


def test_generated_ids_do_not_tell_how_many_there_were() -> None:
    numbers = [int(generate(), 16) for _ in range(4000)]
    # Each bit is set in about half of them, and each changes in about half of all steps.
    steps = [a ^ b for a, b in pairwise(numbers)]
    for values in (numbers, steps):
        for bit in range(80):
            assert 1600 < sum(value >> bit & 1 for value in values) < 2400, bit


def test_generated_ids_differ_and_would_be_accepted() -> None:
    ids = [generate().decode() for _ in range(1000)]
    assert len(set(ids)) == len(ids)
    for request_id in ids:
        assert GENERATED.fullmatch(request_id)
        assert accept_or_generate(request_id) == request_id


@pytest.mark.parametrize("sent", ["a", "7f1c-00", "A.b:c_d-e", "x" * 128])
def test_a_valid_id_is_accepted(sent: str) -> None:
    assert accept_or_generate(sent) == sent


@pytest.mark.parametrize(
    "sent",
    [None, "", "two words", "x" * 129, "a\n", 'a"', "\u00e9", "a ", "a\x00", "\na", "\n\x0ba:b"],
)
def test_any_other_id_is_replaced(sent: str | None) -> None:
    assert GENERATED.fullmatch(accept_or_generate(sent))
