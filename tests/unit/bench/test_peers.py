"""Every peer starts and sends the expected response. Long, because some install themselves."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.peers import contenders
from bench.peers.contenders import Peer
from bench.peers.nats_cluster import NatsCluster
from bench.peers.proxies import HAPROXY, NGINX, TRAEFIK, ProxiedStack, Proxy
from perf import procfs
from perf.load import SINGLE, Load
from testkit.http1 import fetch
from testkit.waiting import wait_until

PEERS = [
    contenders.aiohttp,
    contenders.fastapi,
    contenders.granian,
    contenders.nginx,
    contenders.webdis,
    contenders.express_array,
    contenders.express_redis,
]


@pytest.mark.long
@pytest.mark.parametrize("make", PEERS, ids=lambda make: make.__name__)
def test_a_peer_answers_and_ends(make: Callable[[Path], Peer], tmp_path: Path) -> None:
    with make(tmp_path / "peer") as peer:
        peer.probe(peer.load)
        assert all(peer.versions().values())
        own = [process.pid for process in peer.processes.values()]
        pids = [*own, *(child for pid in own for child in procfs.descendants(pid))]
        assert all(procfs.resident_bytes(pid) > 1 << 20 for pid in pids)
    # Node's workers end by themselves after their primary has ended.
    wait_until(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "all processes to end"
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("proxy", "has_tls"), [(NGINX, False), (NGINX, True), (HAPROXY, False), (TRAEFIK, False)]
)
def test_posts_behind_a_proxy_take_the_fast_path(
    proxy: Proxy,
    has_tls: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    with ProxiedStack(tmp_path, proxy, has_tls=has_tls) as contender:
        assert contender.origin.startswith("https:" if has_tls else "http:")
        for _ in range(5):
            contender.probe(SINGLE)
        totals = contender.settle(SINGLE)
        assert totals.stored == totals.fast_path == 5
        assert all(contender.versions().values())
        assert procfs.resident_bytes(contender.processes[proxy.name].pid) > 1 << 20


@pytest.mark.long
@pytest.mark.parametrize("has_group_commit", [False, True])
def test_jetstream_gives_each_post_an_id(has_group_commit: bool, tmp_path: Path) -> None:  # noqa: FBT001
    with NatsCluster(tmp_path, has_group_commit=has_group_commit) as cluster:
        ids = [post(cluster.port) for _ in range(3)]
        assert ids == sorted(set(ids))
        assert all(cluster.versions().values())
        pids = [process.pid for process in cluster.processes.values()]
        pids += procfs.descendants(cluster.peer.pid)
    wait_until(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "all processes to end"
    )


@pytest.mark.long
def test_jetstream_stores_a_post_with_a_key_once(tmp_path: Path) -> None:
    with NatsCluster(tmp_path) as cluster:
        first = post(cluster.port, key="a")
        assert post(cluster.port, key="b") == first + 1
        assert post(cluster.port, key="a") == first


def post(port: int, key: str = "") -> int:
    """Post a usage, and return its id."""
    headers = {"Idempotency-Key": key} if key else {}
    body = SINGLE.body.encode()
    answer = fetch(port, SINGLE.path, method="POST", body=body, headers=headers)
    assert answer.status == 201, answer
    usage_id: int = answer.json()["id"]
    return usage_id


def test_a_peer_that_answers_something_else_is_not_measured(tmp_path: Path) -> None:
    with (
        contenders.aiohttp(tmp_path / "peer") as peer,
        pytest.raises(RuntimeError, match="answered 404"),
    ):
        peer.probe(Load("elsewhere", "/nothing", 1, "{}"))


def test_an_error_about_a_missing_program_names_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RuntimeError, match=r"apt-get install .* nodejs"):
        contenders.find_program("node")
