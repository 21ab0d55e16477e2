"""Spread partitions over standalone Redis servers: name one twice, lose one, and add one.

Posts without an Idempotency-Key may fail only in the seconds after a server is lost.
"""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from e2e import servers
from e2e.kube import is_ready, wait_for
from e2e.measure import ScenarioFailed, require_none_failed, require_short_outage
from e2e.openloop import OpenLoop
from e2e.release import Release
from e2e.report import Report, Row
from e2e.scenarios.external import SMALL, are_ready
from e2e.scenarios.faults import describe_failures, is_replaced
from e2e.scenarios.partition_servers import (
    is_without,
    keep_down,
    read_log,
    require_places,
    wait_until_complete,
    wait_until_without,
)
from e2e.scenarios.partitions import check_all, check_archive, read_strides
from testkit.history import Outcome

RATE, KEYED_RATE = 60.0, 20.0
STEADY_SECONDS = 5.0
DOWN_SECONDS = 20.0
LOST_SECONDS = 5.0
"""The server ends up to two seconds after its pod was deleted."""
SILENCE_SECONDS = 2.0
PARTITIONS, MANY = 4, 8
PLACES = ("0-1", "2-3", "4-7")
FIRST, SECOND, NEW = {0, 1}, {2, 3}, {4, 5, 6, 7}
PODS = ("redis-0", "redis-3", "redis-1")
"""The second server is the last pod, so that it can be lost for good."""
SPARE = "redis-2"
HOSTS = tuple(f"{pod}.redis" for pod in PODS)
REFUSED = "one server is named twice"


def make_places(*hosts: str) -> dict[str, Any]:
    """Return the values of this many servers."""
    entries = [
        {"partitions": place, "host": host} for place, host in zip(PLACES, hosts, strict=False)
    ]
    return {"externalRedis": {"servers": entries}}


def name_again(release: Release) -> str:
    """Return another name of the first server."""
    return f"{HOSTS[0]}.{release.namespace}.svc"


def install_on_one(release: Release, report: Report) -> None:
    """Install with two entries that lead to one server: nothing is stored for the second."""
    with report.row("two entries that lead to one Redis server: refused") as row:
        release.kube.apply(*servers.make_standalone(len(PODS) + 1))
        wait_for(lambda: are_ready(release.kube, len(PODS) + 1), "Redis", 90)
        values = {
            **release.routing_values(),
            **SMALL,
            "config": {"partitions": PARTITIONS},
            "valkey": {"enabled": False},
            "externalRedis": {
                **make_places(HOSTS[0], name_again(release))["externalRedis"],
                "existingSecret": servers.SECRET,
            },
        }
        release.install(values, wait=False)
        wait_until_refused(release, row, SECOND, flushers=len(SECOND))
        wait_for(lambda: is_routed(release), f"{release.host} to be routed", 60)
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        require_none_failed(row.figures)
        require_places(release.kube, PODS, FIRST, set(), set())


def is_routed(release: Release) -> bool:
    """Return whether the API answers. The count is unknown, because two partitions never began."""
    answer = release.request("/api/usages/1")
    return answer.headers.get("content-type") == "application/problem+json"


def correct(release: Release, report: Report) -> None:
    """Change the second entry to a server of its own, with one more upgrade."""
    with report.row("4 partitions on two Redis servers") as row:
        release.upgrade(make_places(*HOSTS[:2]))
        release.wait_until_routed()
        release.helm_test()
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        check_all(release, row)
        require_places(release.kube, PODS, FIRST, SECOND, set())


def lose_server(release: Release, report: Report) -> None:
    """Kill the first server's pod, and keep the server down for a time."""
    with report.row("one of two Redis servers killed, and down for a time") as row:
        with release.load(RATE) as load, release.load(KEYED_RATE, mixed=True) as keyed:
            time.sleep(STEADY_SECONDS)
            with keep_down(release, row, PODS[0], FIRST) as killed:
                check_reads(release)
                time.sleep(DOWN_SECONDS)
            wait_until_complete(release, row)
            back = time.monotonic()
            time.sleep(STEADY_SECONDS)
            row.figures, others = load.stop(), keyed.stop()
        row.notes.append(
            f"{others.failed} of {others.sent} posts of another load failed, half of which have a"
            f" key, and half of which are batches: {others.statuses}"
        )
        check_loss(release, row, load, killed)
        require_none_later(keyed, back)
        if not others.failed:
            raise ScenarioFailed("no post with a key failed: the server was not down")


def restart_pods(release: Release, report: Report) -> None:
    """Delete all pods of API and flusher while the second server is down."""
    name = "all pods of API and flusher deleted while a Redis server is down"
    with report.row(name) as row:
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            with keep_down(release, row, PODS[1], SECOND) as killed:
                for pod in release.kube.pods("api"):
                    replace_pod(release, "api", pod)
                old = {pod.metadata.uid for pod in release.kube.pods("flusher")}
                for pod in release.kube.pods("flusher"):
                    release.kube.delete_pod(pod.metadata.name)
                wait_for(lambda: list_new_flushers(release, old) == FIRST, "flushers", 90)
                wait_for(lambda: is_without(release, SECOND), "the API's pods", 30)
                time.sleep(STEADY_SECONDS)
            wait_until_complete(release, row)
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        check_loss(release, row, load, killed)


def replace_pod(release: Release, component: str, pod: Any) -> None:
    """Delete a pod, and wait until another one is ready."""
    release.kube.delete_pod(pod.metadata.name)
    wait_for(
        lambda: is_replaced(release.kube, component, pod.metadata.uid),
        f"{pod.metadata.name} to be replaced",
    )


def list_new_flushers(release: Release, old: set[str]) -> set[int]:
    """Return the partitions of the flushers that are ready, once all of the old ones have ended."""
    pods = release.kube.pods("flusher")
    if len(pods) < PARTITIONS or old & {pod.metadata.uid for pod in pods}:
        return set()
    return {int(pod.metadata.name.rpartition("-")[2]) for pod in pods if is_ready(pod)}


def refuse_growth(release: Release, report: Report) -> None:
    """Add partitions on a server that has others: they do not begin, and posts continue."""
    with report.row("partitions added on a server of others: refused") as row:
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            values = make_places(*HOSTS[:2], name_again(release))
            release.upgrade(values | {"config": {"partitions": MANY}}, wait=False)
            wait_until_refused(release, row, NEW)
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        # The next row has the audit: until the new partitions have begun, counts are unknown.
        require_none_failed(row.figures)
        require_places(release.kube, PODS, FIRST, SECOND, set())


def grow(release: Release, report: Report) -> None:
    """Change their entry to a new server, with one more upgrade."""
    with report.row("a third Redis server with 4 more partitions, by helm upgrade") as row:
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            began = time.monotonic()
            release.upgrade(make_places(*HOSTS))
            row.notes.append(f"the upgrade took {time.monotonic() - began:.0f} s")
            wait_until_complete(release, row)
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        check_all(release, row)
        require_places(release.kube, PODS, FIRST, SECOND, NEW)
        strides = {number: read_strides(release, number) for number in range(MANY)}
        if not all(text.endswith(f":{MANY}") for text in strides.values()):
            raise ScenarioFailed(f"the strides are {strides}")


def replace_server(release: Release, report: Report) -> None:
    """Lose the second server for good, and put an empty one into its entry, as the page says."""
    with report.row("a Redis server lost for good, an empty one in its entry") as row:
        scale = {"spec": {"replicas": len(PODS)}}
        release.kube.apps.patch_namespaced_stateful_set_scale("redis", release.namespace, scale)
        wait_until_without(release, row, SECOND)
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            release.upgrade(make_places(HOSTS[0], f"{SPARE}.redis", HOSTS[2]))
            wait_until_complete(release, row)
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.notes.append(f"{row.figures.silence:.1f} s without a 201")
        check_archive(release, row, jumped=True)
        require_none_failed(row.figures)
        require_places(release.kube, (PODS[0], SPARE, PODS[2]), FIRST, SECOND, NEW)


def check_reads(release: Release) -> None:
    """Check that lookups find what is archived while the first server is down, and counts fail.

    Raises:
        ScenarioFailed: One of this does not hold.
    """
    ids = [number for request in release.history.requests for number in request.ids]
    for partition in range(PARTITIONS):
        number = next(number for number in ids if (number - 1) % PARTITIONS == partition)
        answer = release.request(f"/api/usages/{number}")
        if answer.status != HTTPStatus.OK:
            raise ScenarioFailed(f"the lookup of {number}: {answer}")
    answer = release.request("/api/usages/count")
    if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
        raise ScenarioFailed(f"the count without a server: {answer}")


def check_loss(release: Release, row: Row, load: OpenLoop, killed: float) -> None:
    """Check the archive, and that posts failed only immediately after the loss of a server."""
    assert row.figures
    row.notes += [f"{row.figures.silence:.1f} s without a 201", *describe_failures(row.figures)]
    failed = [entry.planned_at for entry in load.samples if entry.outcome is not Outcome.OK]
    if failed:
        row.notes.append(f"the last of these was sent {max(failed) - killed:.1f} s after the kill")
    check_archive(release, row)
    require_none_later(load, killed + LOST_SECONDS)
    require_short_outage(row.figures, SILENCE_SECONDS)


def require_none_later(load: OpenLoop, since: float) -> None:
    """Check that no post failed that was sent after a time.

    Raises:
        ScenarioFailed: One failed.
    """
    late = [sample for sample in load.samples if sample.planned_at > since]
    failed = [sample for sample in late if sample.outcome is not Outcome.OK]
    if failed or not late:
        raise ScenarioFailed(f"{len(failed)} of {len(late)} posts failed: {failed[:3]}")


def wait_until_refused(
    release: Release, row: Row, partitions: set[int], *, flushers: int = 1
) -> None:
    """Wait until flushers of these partitions refuse their server, and no API process has them.

    Of new partitions, only those whose parent has restarted begin. The first one that refuses ends
    the restarts.
    """

    def list_refused() -> list[int]:
        return [n for n in sorted(partitions) if REFUSED in read_log(release.kube, n)]

    wait_for(lambda: len(list_refused()) >= flushers, "the flushers to refuse their server", 180)
    wait_for(lambda: is_without(release, partitions), "the API's pods", 120)
    row.notes.append(f"refused by the flushers of the partitions {list_refused()}")


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (
    install_on_one,
    correct,
    lose_server,
    restart_pods,
    refuse_growth,
    grow,
    replace_server,
)
