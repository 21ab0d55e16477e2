"""Whole numbers on a command line: accepted within limits, otherwise refused with a message."""

import argparse

import pytest

from busyapi.argument_types import whole_number


@pytest.mark.parametrize("text", ["1", "256", "16"])
def test_a_number_within_the_limits_is_accepted(text: str) -> None:
    assert whole_number(1, 256)(text) == int(text)


def test_without_a_maximum_any_size_is_accepted() -> None:
    assert whole_number(0)("9" * 30) == int("9" * 30)


@pytest.mark.parametrize("text", ["0", "257", "-1", "1.5", "", "one", "9" * 5000])
def test_any_other_text_is_refused_with_the_limits(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        whole_number(1, 256, "a TCP port")(text)
    assert str(caught.value) == f"{text[:20]!r} is not a TCP port from 1 to 256"
