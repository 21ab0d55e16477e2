"""The first row of the overview: the objectives, and the alerts that fire.

The chart's rules record the share of requests or time that missed an objective, over windows from 5
minutes to 3 days. The error budget is the share that may miss it.
"""

from charts.dashboards.board import Row
from charts.dashboards.panels import GREEN, LOWEST, RED, YELLOW, Lines, Number, Query, Table
from charts.dashboards.queries import FLUSHER, PARTITION, largest, select

BUDGETS = {"availability": 0.001, "latency": 0.01, "archiving": 0.001}


def _burn(objective: str, window: str) -> str:
    """Return the burn rate of a budget: at 1 it lasts exactly its 30 days."""
    errors = select(f"busyapi:{objective}_errors:ratio_rate{window}")
    return f"max({errors}) / {BUDGETS[objective]}"


def _budget_left(objective: str, about: str) -> Number:
    return Number(
        title=f"{objective.capitalize()}: budget left",
        about=f"{about} Over the last 3 days. 100 %: the objective was never missed. 0 %: the"
        " budget is used up. Below 0: overspent. The next row shows whether it still burns.",
        unit="percentunit",
        decimals=1,
        steps=[(LOWEST, RED), (0, YELLOW), (0.5, GREEN)],
        queries=[Query(f"1 - {_burn(objective, '3d')}")],
        alerts=[f"Busyapi{objective.capitalize()}Burn"],
    )


OBJECTIVES = Row(
    "Service level objectives",
    [
        _budget_left("availability", "At most 0.1 % of requests may get a 5xx."),
        _budget_left("latency", "At most 1 % of POST requests may take longer than 50 ms."),
        _budget_left(
            "archiving",
            "For at most 0.1 % of the time, the oldest usage of a partition may wait longer than"
            " 60 s for the archive.",
        ),
        Table(
            title="Firing alerts",
            about="Alerts of busyapi that fire now. Each name links to its runbook. Normal:"
            " none. Take a critical one first.",
            unit="short",
            no_data="No alerts",
            width=12,
            height=4,
            queries=[
                Query(
                    'ALERTS{alertname=~"Busyapi.*", alertstate="firing",'
                    ' namespace=~"$namespace|", release=~"$release|"}'
                )
            ],
            columns=[
                ("alertname", "Alert"),
                ("severity", "Severity"),
                ("partition", "Partition"),
                ("pod", "Pod"),
            ],
            linked="alertname",
        ),
        Lines(
            title="Error budget burn rate",
            about="Over the last hour. 1: the budget lasts exactly its 30 days. Above 14.4 a"
            " critical alert fires: the budget would be gone in two days.",
            unit="short",
            width=12,
            height=7,
            steps=[(1, YELLOW), (14.4, RED)],
            queries=[Query(_burn(objective, "1h"), objective) for objective in BUDGETS],
            alerts=[f"Busyapi{objective.capitalize()}Burn" for objective in BUDGETS],
        ),
        Lines(
            title="Oldest unarchived usage",
            about="Age of the oldest usage that is in Redis and not yet in the archive. Normal:"
            " below a few seconds. The line is the objective of 60 s. Above it: a flusher is"
            " down, halted or slow.",
            unit="s",
            width=12,
            height=7,
            steps=[(60, RED)],
            queries=[
                Query(
                    largest(select("busyapi_oldest_unarchived_seconds", of=FLUSHER), "partition"),
                    PARTITION,
                )
            ],
            alerts=["BusyapiArchivingBurn", "BusyapiFlusherStuck"],
        ),
    ],
)
