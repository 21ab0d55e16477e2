from pathlib import Path

import pytest

from testkit.servers import Flavour
from testkit.topologies import ClusterOfThree, SentinelSet
from testkit.waiting import wait_until


def test_cluster_shares_the_slots_among_three(tmp_path: Path) -> None:
    with ClusterOfThree(tmp_path / "c", "redis") as cluster:
        for n in range(4):
            cluster.client().set(f"{{{n}}}", n)
        assert len({cluster.primary_of(f"{{{n}}}") for n in range(4)}) > 1
        for n in range(4):
            assert cluster.primary_of(f"{{{n}}}").client().get(f"{{{n}}}") == str(n)
        assert cluster.settings()["BUSYAPI_REDIS_URL"].count("127.0.0.1") == 3


def test_replica_takes_over_a_dead_primarys_slots(tmp_path: Path) -> None:
    config = ["cluster-node-timeout 3000"]
    with ClusterOfThree(tmp_path / "c", "valkey", config=config, replicas=True) as cluster:
        old = cluster.primary_of("{0}")
        old.client().set("{0}", "kept")
        assert old.client().wait(1, 5000) == 1
        old.kill9()
        wait_until(lambda: cluster.primary_of("{0}") is not old, "the takeover", seconds=60)
        new = cluster.primary_of("{0}")
        assert new in cluster.replicas
        assert new.client().get("{0}") == "kept"


def test_sentinels_promote_the_replica_of_a_dead_primary(tmp_path: Path, flavour: Flavour) -> None:
    with SentinelSet(tmp_path / "s", flavour, password="secret", down_after_ms=2000) as sentinels:
        old = sentinels.primary()
        old.client().set("a", "1")
        assert old.client().wait(1, 5000) == 1
        with pytest.raises(TimeoutError, match="the primary"):
            sentinels.wait_for_failover(old, seconds=0.2)
        old.kill9()
        new = sentinels.wait_for_failover(old, seconds=60)
        assert new is sentinels.primary() is sentinels.other(old)
        assert new.client().get("a") == "1"
        assert sentinels.url.startswith("redis+sentinel://127.0.0.1:")
        assert sentinels.url.endswith("/busyapi")
        assert sentinels.settings()["BUSYAPI_REDIS_PASSWORD"] == "secret"
