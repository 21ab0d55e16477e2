"""The last row of the dashboard "Data path": the Iceberg table that `busyapi lake` keeps."""

from charts.dashboards.board import Row
from charts.dashboards.panels import RED, Lines, Query
from charts.dashboards.queries import (
    FLUSHER,
    PARTITION,
    increase,
    largest,
    rate,
    select,
    total,
)

SUCCEEDED = select("busyapi_lake_succeeded_timestamp_seconds", of=FLUSHER) + " > 0"
NO_LAKE = "No lake"

LAKE = Row(
    "Lake: from the archive to the Iceberg table",
    [
        Lines(
            title="Lake lag",
            about="How long ago the oldest segment was finished whose usages the table lacks, and"
            " the time since the last turn without a problem. Normal: up to lake.interval and the"
            " time of a commit. Rising: the catalog or the object store does not answer, or the"
            " archive has a problem. Retention deletes what the table lacks.",
            unit="s",
            width=6,
            no_data=NO_LAKE,
            steps=[(3600, RED)],
            queries=[
                Query(
                    largest(select("busyapi_lake_lag_seconds", of=FLUSHER), "partition"), PARTITION
                ),
                Query(
                    f"time() - {largest(SUCCEEDED, 'partition')}", "last good turn, " + PARTITION
                ),
            ],
            alerts=["BusyapiLakeBehind"],
        ),
        Lines(
            title="Usages that the lake lacks",
            about="Usages in finished segments that the table does not have yet: rises by a segment"
            " and falls to 0. For good: retention deleted them first. Normal: 0.",
            unit="suffix: usages",
            width=6,
            no_data=NO_LAKE,
            queries=[
                Query(
                    largest(select("busyapi_lake_behind_usages", of=FLUSHER), "partition"),
                    PARTITION,
                ),
                Query(
                    largest(select("busyapi_lake_missing_usages", of=FLUSHER), "partition"),
                    "for good, " + PARTITION,
                ),
            ],
            alerts=["BusyapiLakeUsagesMissing"],
        ),
        Lines(
            title="Usages taken into the lake",
            about="Usages per second that were committed to the table. Comes in steps, after each"
            " finished segment. On average as many as are archived.",
            unit="suffix: usages/s",
            width=6,
            no_data=NO_LAKE,
            queries=[Query(total(rate("busyapi_lake_usages_total")), "taken")],
        ),
        Lines(
            title="Lake failures",
            about="Turns that failed in each interval, because the catalog or the object store did"
            " not answer or refused. Problems: usages of the archive that cannot be read, so"
            " nothing more of their partition is taken. Normal: none.",
            unit="short",
            width=6,
            no_data=NO_LAKE,
            queries=[
                Query(total(increase("busyapi_lake_failures_total")), "failed turns"),
                Query(
                    total(select("busyapi_lake_problems", of=FLUSHER), "partition"),
                    "problems, " + PARTITION,
                ),
            ],
            alerts=["BusyapiLakeBehind"],
        ),
    ],
)
