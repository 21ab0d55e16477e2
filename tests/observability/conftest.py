"""The chart's rules as they are in one release, their time running faster."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from testkit.prometheus import NAMESPACE, RELEASE
from testkit.time_scale import scaled

ROOT = Path(__file__).parents[2]
RULES = ROOT / "charts" / "busyapi" / "files" / "rules.yaml"
FACTOR = 480
"""Five minutes are the least window, an hour 7.5 seconds, six hours 45."""


@pytest.fixture(scope="session")
def rules() -> dict[str, Any]:
    """The chart's rules."""
    text = RULES.read_text()
    for word, value in (("NAMESPACE", NAMESPACE), ("RELEASE", RELEASE), ("FULLNAME", RELEASE)):
        text = text.replace(word, value)
    found: dict[str, Any] = yaml.safe_load(text)
    return scaled(found, FACTOR)
