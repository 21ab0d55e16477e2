"""What the benchmark starts is gone with its folder."""

from collections.abc import Iterator

import pytest

from tests.support.leaks import STARTED


@pytest.fixture(autouse=True)
def _logs_go_with_their_folder() -> Iterator[None]:
    """Keep the search for leaks from missing logs that the benchmark removes, as it should."""
    before = set(STARTED)
    yield
    STARTED.intersection_update(before)
