"""Rounds of random faults: how many, by which seed, and which one failed."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

ROUNDS = os.environ.get("BUSYAPI_TEST_ROUNDS")
"""Replaces the number of rounds of every test."""
ROUND_SECONDS = 30
"""More than a round takes on a busy machine."""
SEED = int(os.environ.get("BUSYAPI_TEST_KILL_SEED", time.time_ns()))
"""Of a run. A failed one can be repeated with the seed in its message."""


def make_rounds(short: int, full: int, seconds: int = ROUND_SECONDS) -> list[object]:
    """Return the number of rounds in `make test-later` and `make soak`, as parameters."""
    return [
        pytest.param(
            int(ROUNDS or rounds),
            marks=[mark, pytest.mark.timeout(120 + seconds * int(ROUNDS or rounds))],
        )
        for rounds, mark in ((short, pytest.mark.faults), (full, pytest.mark.long))
    ]


def make_chance() -> random.Random:
    """Return the random numbers of the seed."""
    return random.Random(SEED)


@contextmanager
def describe_failure(text: object) -> Iterator[None]:
    """Add a text and the seed to the exception of a round."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"{text}, BUSYAPI_TEST_KILL_SEED={SEED}")
        raise
