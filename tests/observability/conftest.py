"""The chart's rules for one release, with their time scaled down."""

from typing import Any

import pytest

from testkit.prometheus import chart_rules
from testkit.time_scale import scale_rules

FACTOR = 480
"""An hour becomes 7.5 seconds, six hours 45. The smallest window is that of five minutes."""


@pytest.fixture(scope="session")
def rules() -> dict[str, Any]:
    """Return the scaled rules of the chart."""
    return scale_rules(chart_rules(), FACTOR)
