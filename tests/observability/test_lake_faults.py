"""A table that does not follow its archive fires alerts, whether its process waits or has lost."""

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from testkit.archive.builder import change_identity, find_segments, make_batch, recover_writer
from testkit.docs.runbooks import pages
from testkit.lake_process import LakeProcess
from testkit.prometheus import NAMESPACE, Prometheus, Targets
from testkit.rest_catalog import run_rest_catalog
from testkit.waiting import wait_until

BEHIND, MISSING = "BusyapiLakeBehind", "BusyapiLakeUsagesMissing"
LAG = "busyapi_lake_lag_seconds"
TWO_HOURS = 7200


def grow(root: Path) -> Path:
    """Add a finished segment of five usages, and return it."""
    writer = recover_writer(root)
    writer.append([make_batch(writer.cursor + 1, 5)])
    writer.close()
    return find_segments(root)[-1]


def list_queries() -> list[str]:
    """Return the queries of both runbooks."""
    return [
        query.text.replace('namespace="busyapi"', f'namespace="{NAMESPACE}"')
        for page in pages()
        if page.name in {BEHIND, MISSING}
        for query in page.of("promql")
    ]


def test_table_that_stands_still_and_usages_that_it_lost_fire_alerts(
    tmp_path: Path, rules: Mapping[str, Any]
) -> None:
    root = tmp_path / "archive"
    grow(root)
    with run_rest_catalog(tmp_path / "catalog") as catalog, ExitStack() as running:
        settings = {"BUSYAPI_LAKE_CATALOG": catalog.uri, "BUSYAPI_LAKE_WAREHOUSE": "analytics"}
        lake = LakeProcess(tmp_path, root, settings)
        prometheus = Prometheus(tmp_path / "prometheus", Targets([lake]), rules)
        with catalog.lock:  # it does not answer
            running.enter_context(lake)
            running.enter_context(prometheus)
            prometheus.wait_until_firing(BEHIND)
            assert not prometheus.query(LAG), "it cannot know how far the table has come"
        prometheus.wait_until_resolved(BEHIND)
        wait_until(lambda: lake.read_metric("busyapi_lake_usages_total") == 5, "a commit")
        with catalog.lock:
            segment = grow(root)
            finished_at = time.time() - TWO_HOURS
            os.utime(segment, (finished_at, finished_at))
            prometheus.wait_until_firing(BEHIND)
            assert lake.read_metric(LAG) >= TWO_HOURS
            assert lake.read_metric("busyapi_lake_behind_usages") == 5
            assert all(prometheus.query(query) for query in list_queries())
            # As retention does.
            change_identity(root / "p00" / "partition.json", keptFrom=11)
            segment.unlink()
            grow(root)
        prometheus.wait_until_firing(MISSING)
        prometheus.wait_until_resolved(BEHIND)
        assert lake.read_metric("busyapi_lake_missing_usages") == 5
