"""A builder of counts."""

from typing import Any

from perf.reconcile import Counts


def make_counts(**changes: Any) -> Counts:
    """Return counts that agree except for `changes`."""
    members: dict[str, Any] = {
        "seen": 990,
        "cut_off": 10,
        "sent": 1000,
        "stored": 1000,
        "counted": 1000,
        "archived": 1000,
        "lines": 1000,
        "fault": "",
        "statuses": {201: 990, 499: 10},
        "errors": 0,
    }
    return Counts(**(members | changes))
