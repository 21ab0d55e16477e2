"""The first row of the overview: the objectives, and the alerts that fire.

The chart's rules record the share of what missed an objective, over windows from 5 minutes to 3
days; the budget is the share that may.
"""

from charts.dashboards.board import Row
from charts.dashboards.panels import GREEN, LOWEST, RED, YELLOW, Lines, Number, Query, Table
from charts.dashboards.queries import FLUSHER, PARTITION, largest, picked

BUDGETS = {"availability": 0.001, "latency": 0.01, "archiving": 0.001}


def _burn(objective: str, window: str) -> str:
    """Give how fast a budget is used: 1 is just as fast as it may be."""
    errors = picked(f"busyapi:{objective}_errors:ratio_rate{window}")
    return f"max({errors}) / {BUDGETS[objective]}"


def _left(objective: str, about: str) -> Number:
    return Number(
        title=f"{objective.capitalize()}: error budget left",
        about=f"{about} Over the last 3 days: 100 % is none missed, 0 % as many as may be, below it"
        " more than that. The row below tells whether it still goes on.",
        unit="percentunit",
        decimals=1,
        steps=[(LOWEST, RED), (0, YELLOW), (0.5, GREEN)],
        queries=[Query(f"1 - {_burn(objective, '3d')}")],
        alerts=[f"Busyapi{objective.capitalize()}Burn"],
    )


WELL = Row(
    "Is it well?",
    [
        _left("availability", "Of the requests, 0.1 % may get a 5xx."),
        _left("latency", "Of the POSTs, 1 % may take longer than 50 ms."),
        _left(
            "archiving",
            "For 0.1 % of the time, a partition's oldest usage may wait longer than 60 s for the"
            " archive.",
        ),
        Table(
            title="Firing alerts",
            about="Alerts of busyapi that fire now; a name links to its runbook. Empty is normal."
            " Take a critical one first.",
            unit="short",
            none="None fires",
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
            about="Over the last hour: at 1 a budget lasts just as long as it must. An alert wakes"
            " someone above 14.4, where a month's budget is gone in two days.",
            unit="short",
            width=12,
            height=7,
            steps=[(1, YELLOW), (14.4, RED)],
            queries=[Query(_burn(each, "1h"), each) for each in BUDGETS],
            alerts=[f"Busyapi{each.capitalize()}Burn" for each in BUDGETS],
        ),
        Lines(
            title="Oldest unarchived usage",
            about="Age of the oldest usage that is in Redis and not yet in the archive. Normal is"
            " below a few seconds; the line is the objective of 60 s. Above it a flusher is away,"
            " halted or slow.",
            unit="s",
            width=12,
            height=7,
            steps=[(60, RED)],
            queries=[
                Query(
                    largest(picked("busyapi_oldest_unarchived_seconds", of=FLUSHER), "partition"),
                    PARTITION,
                )
            ],
            alerts=["BusyapiArchivingBurn", "BusyapiFlusherStuck"],
        ),
    ],
)
