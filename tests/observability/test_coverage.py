"""A fault in this folder fires every alert that does not need a cluster."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ON_A_CLUSTER = {
    "BusyapiPodsThrottled",
    "BusyapiAutoscalerAtMaximum",
    "BusyapiRedisDiskFilling",
}
"""They read cAdvisor and kube-state-metrics."""
QUIET = re.compile(r"expect_quiet\([^)]*\)")


def test_every_alert_is_fired_by_a_fault(rules: Mapping[str, Any]) -> None:
    alerts = {rule.get("alert") for group in rules["groups"] for rule in group["rules"]} - {None}
    fired = {
        name
        for path in Path(__file__).parent.glob("test_*_faults.py")
        for name in re.findall(r'"(Busyapi\w+)', QUIET.sub("", path.read_text()))
    }
    assert fired.isdisjoint(ON_A_CLUSTER)
    assert fired | ON_A_CLUSTER == alerts
