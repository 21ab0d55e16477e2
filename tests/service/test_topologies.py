"""End to end over every shape of Redis: partitions, Cluster, Sentinel, TLS, logins."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import Stacks
from tests.support.certificates import make_certificates
from tests.support.history import History
from tests.support.load import Load
from tests.support.processes import Stack
from tests.support.servers import Flavour, Server
from tests.support.topologies import ClusterOfThree, SentinelSet
from tests.support.waiting import wait_until

SECONDS = 3.0


def loaded(stack: Stack) -> History:
    """Post for a while, single and in batches, and see everything archived."""
    with (
        Load(stack.port, connections=8, seconds=SECONDS) as load,
        Load(
            stack.port, connections=2, batch=20, keys=True, seconds=SECONDS, history=load.history
        ) as batches,
    ):
        batches.finish()
        history = load.finish()
    stack.wait_until_archived()
    return history


def holds(stack: Stack, history: History) -> None:
    verdict = stack.verdict(history)
    assert verdict.ok, verdict
    assert history.acknowledged > 0


def verified(stack: Stack) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "busyapi", "archive", "verify", "--dir", str(stack.archive)],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout


def test_four_partitions_archive_into_four_folders(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey, partitions=4, apis=2)
    history = loaded(stack)
    holds(stack, history)
    verified(stack)
    assert sorted(each.name for each in stack.archive.iterdir()) == ["p00", "p01", "p02", "p03"]


def test_cluster_of_three_carries_four_partitions(
    tmp_path: Path, flavour: Flavour, stacks: Stacks
) -> None:
    with ClusterOfThree(tmp_path / "cluster", flavour) as cluster:
        stack = stacks(cluster, partitions=4)
        holds(stack, loaded(stack))
        owners = {cluster.primary_of(f"{{{p}}}").port for p in range(4)}
        assert len(owners) > 1, "the partitions should not all be on one node"
        stack.close()


def test_sentinel_failover_repeats_no_id_and_loses_nothing_replicated(
    tmp_path: Path, flavour: Flavour, stacks: Stacks
) -> None:
    with SentinelSet(tmp_path / "sentinel", flavour) as sentinels:
        stack = stacks(sentinels, settings={"BUSYAPI_DURABILITY": "replicated"})
        with Load(stack.port, connections=8) as load:
            wait_until(lambda: load.history.acknowledged > 200, "some load")
            old = sentinels.primary()
            old.kill9()
            new = sentinels.wait_for_failover(old)
            # Without a replica nothing may be answered in this tier; the old one comes back as one.
            old.start()
            wait_until(
                lambda: new.replication().get("connected_slaves", 0) == 1,
                "the old primary to follow",
                seconds=30,
            )
            before = load.history.acknowledged
            wait_until(lambda: load.history.acknowledged > before + 200, "answers", seconds=60)
            history = load.stop()
        stack.wait_until_archived(60)
        holds(stack, history)
        assert stack.flushers[0].metric("busyapi_epoch_jumps_total") >= 1
        stack.close()


def test_tls_with_a_ca_of_ones_own(tmp_path: Path, stacks: Stacks) -> None:
    # The wheel's Valkey is built without TLS; Debian's Redis has it.
    certificates = make_certificates(tmp_path)
    with Server(tmp_path / "tls", "redis", certificates=certificates, password="pw") as server:
        stack = stacks(server)
        holds(stack, loaded(stack))
        stack.close()


def test_another_number_of_partitions_is_refused(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey)
    api = stack.apis[0]
    api.stop()
    api.environment["BUSYAPI_PARTITIONS"] = "2"
    api.environment["BUSYAPI_FLUSHER_URLS"] = "http://127.0.0.1:1,http://127.0.0.1:2"
    api.spawn()
    assert api.wait(20) == 1
    assert "1 partitions, BUSYAPI_PARTITIONS says 2" in api.log.read_text()
