"""The chart's rules as they are in one release, their time running faster."""

from typing import Any

import pytest

from testkit.prometheus import chart_rules
from testkit.time_scale import scaled

FACTOR = 480
"""Five minutes are the least window, an hour 7.5 seconds, six hours 45."""


@pytest.fixture(scope="session")
def rules() -> dict[str, Any]:
    """The chart's rules."""
    return scaled(chart_rules(), FACTOR)
