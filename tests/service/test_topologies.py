"""Four partitions, a cluster of three servers, and a failover by sentinels, end to end."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from busyapi.stream.keys import PartitionKeys
from testkit.archive_reader import read_archive
from testkit.checker import Defect
from testkit.history import History
from testkit.load import Load
from testkit.ports import reserve_port
from testkit.processes import Api, Flusher, Stack, Store
from testkit.replicated import CONFIG, start_as_replica
from testkit.servers import Flavour, Server
from testkit.topologies import ClusterOfThree, SentinelSet
from testkit.waiting import wait_until


def post_all_kinds(stack: Stack, requests: int) -> History:
    """Post singles and batches, with and without keys."""
    history = History()
    with ExitStack() as running:
        for batch, keys in ((0, False), (0, True), (7, False), (7, True)):
            load = Load(
                stack.port,
                connections=4,
                batch=batch,
                keys=keys,
                requests=requests,
                history=history,
            )
            running.callback(running.enter_context(load).finish)
    return history


def assert_four_partitions_work(stack: Stack, requests: int) -> None:
    history = post_all_kinds(stack, requests)
    assert history.acknowledged == 2 * requests + 2 * 7 * requests, history
    stack.wait_until_archived()
    verdict = stack.check_history(history)
    assert verdict.ok, verdict
    lines = {
        n: len(partition.lines) for n, partition in read_archive(stack.archive).partitions.items()
    }
    assert set(lines) == {0, 1, 2, 3}
    assert all(lines.values()), lines


def test_four_partitions_on_one_server_and_no_other_number_of_them(
    tmp_path: Path, valkey: Server
) -> None:
    with Stack(tmp_path / "stack", valkey, apis=2, partitions=4) as stack:
        assert_four_partitions_work(stack, 50)
        # A process with another number of partitions is refused and reports the reason.
        reason = "installation was made with 4 partitions, BUSYAPI_PARTITIONS says 1"
        other = {**valkey.settings(), "BUSYAPI_PARTITIONS": "1"}
        api = Api(tmp_path / "other", "api", reserve_port(), other)
        api.spawn()
        assert api.wait(20) == 1
        assert reason in api.tail()

        stack.flushers[0].stop()
        valkey.command("DEL", PartitionKeys(0).lease)  # as if it had expired
        for folder, problem in (
            (tmp_path / "elsewhere", "installed with 4 partitions, BUSYAPI_PARTITIONS says 1"),
            (stack.archive, "installation of 4 partitions, BUSYAPI_PARTITIONS says 1"),
        ):
            settings = {**other, "BUSYAPI_ARCHIVE_DIR": str(folder)}
            flusher = Flusher(tmp_path / f"other-{folder.name}", 0, reserve_port(), settings)
            flusher.spawn()
            try:
                wait_until(
                    partial(has_logged, flusher, problem), f"{flusher} to report it", seconds=20
                )
                assert not flusher.is_ready()
            finally:
                flusher.close()
        # A partition that has left has an archive, and one that is to come is within the number.
        settings = stack.flushers[0].environment
        flusher = Flusher(tmp_path / "fifth", 4, reserve_port(), settings)
        flusher.spawn()
        try:
            reported = partial(has_logged, flusher, "partition 4 has no archive in")
            wait_until(reported, "it to report that", seconds=20)
        finally:
            flusher.close()


def has_logged(flusher: Flusher, text: str) -> bool:
    return text in flusher.tail()


@pytest.mark.parametrize("flavour", ["redis", pytest.param("valkey", marks=pytest.mark.long)])
def test_four_partitions_on_a_cluster_of_three(tmp_path: Path, flavour: Flavour) -> None:
    with (
        ClusterOfThree(tmp_path / "cluster", flavour) as cluster,
        Stack(tmp_path / "stack", cluster, partitions=4) as stack,
    ):
        assert_four_partitions_work(stack, 25)


@pytest.mark.parametrize("tier", ["replicated", pytest.param("fsync", marks=pytest.mark.long)])
def test_failover_repeats_no_id_and_loses_only_what_its_tier_allows(
    tmp_path: Path, tier: str
) -> None:
    settings = {"BUSYAPI_DURABILITY": tier, "BUSYAPI_COMMIT_DEADLINE": "3"}
    config = CONFIG if tier == "replicated" else ()
    with SentinelSet(tmp_path / "sentinels", config=config, password="s3cret") as sentinels:
        store: Store = sentinels
        with Stack(tmp_path / "stack", store, apis=2, settings=settings) as stack:
            with (
                Load(stack.port, connections=4) as load,
                # Each is retried until it is answered, and none may be stored twice.
                Load(stack.port, connections=4, keys=True, history=load.history),
            ):
                wait_until(lambda: load.history.acknowledged > 100, "usages")
                old = sentinels.primary()
                old.kill9()
                new = sentinels.wait_for_failover(old)
                # The replicated tier needs a replica; sentinels would take ten seconds.
                start_as_replica(old, new)
                for process in stack.processes:
                    process.wait_until_ready()
                before = load.history.acknowledged
                wait_until(lambda: load.history.acknowledged > before + 100, "usages", seconds=20)
            stack.wait_until_archived()
            jumps = stack.flushers[0].read_metric("busyapi_epoch_jumps_total")
            assert set(stack.stop().values()) == {0}
    verdict = stack.check_history(load.history)
    allowed = {Defect.MISSING} if tier == "fsync" else set()
    assert set(verdict.defects) <= allowed, verdict
    assert (jumps >= 1) == (tier == "fsync")
    assert len(read_archive(stack.archive).partition(0).gaps) == jumps
