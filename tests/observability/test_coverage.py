"""Every alert is made to fire by a fault in here, or needs a cluster."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ON_A_CLUSTER = {"BusyapiPodsThrottled", "BusyapiAutoscalerAtMaximum"}
"""They read cAdvisor and kube-state-metrics."""


def test_every_alert_is_made_to_fire(rules: Mapping[str, Any]) -> None:
    alerts = {each.get("alert") for group in rules["groups"] for each in group["rules"]} - {None}
    tried = {
        name
        for path in Path(__file__).parent.glob("test_*_faults.py")
        for name in re.findall(r'"(Busyapi\w+)', path.read_text())
    }
    assert tried.isdisjoint(ON_A_CLUSTER)
    assert tried | ON_A_CLUSTER == alerts
