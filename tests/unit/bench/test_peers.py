"""Every peer starts and sends the expected response. Long, because some install themselves."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.peers import contenders
from bench.peers.contenders import Peer
from perf import procfs
from perf.load import Load
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
