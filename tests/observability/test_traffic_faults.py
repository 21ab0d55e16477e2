"""Devices that no longer reach the API fire the alert on traffic. A day becomes 20 seconds."""

from pathlib import Path

from testkit.monitored_stack import run_monitored_stack
from testkit.prometheus import chart_rules
from testkit.time_scale import scale_rules

FACTOR = 86_400 / 20
ALERT = "BusyapiTrafficGone"


def test_traffic_that_ends_fires_an_alert(tmp_path: Path) -> None:
    rules = scale_rules(chart_rules(), FACTOR)
    (group,) = (group for group in rules["groups"] if group["name"] == "busyapi-traffic")
    with run_monitored_stack(tmp_path, {"groups": [group]}) as monitored:
        with monitored.load():
            monitored.expect_quiet(ALERT, seconds=25)
        monitored.prometheus.wait_until_firing(ALERT)
        with monitored.load():
            monitored.prometheus.wait_until_resolved(ALERT)
