"""The chart's rules, as Prometheus reads them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "k8s" / "observability" / "rules.yaml"


@pytest.fixture(scope="session")
def rules() -> dict[str, Any]:
    """The rules file that is made from the chart."""
    found: dict[str, Any] = yaml.safe_load(RULES.read_text())
    return found
