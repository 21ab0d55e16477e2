"""A failed lookup of a host of Redis does not end the service while the address is the same."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from busyapi.stream.keys import PartitionKeys
from testkit.api_client import USAGE, check_problem, check_stored, check_unavailable, send
from testkit.http1 import fetch
from testkit.name_service import NameService
from testkit.processes import Process, Stack, Store
from testkit.servers import Server
from testkit.topologies import ClusterOfThree, SentinelSet
from testkit.waiting import wait_until

NAME = "redis.test"
REMOVED = "removed.test"


class Named:
    """A stack that finds its Redis by name."""

    def __init__(self, folder: Path, store: Store, *, first: str = NAME) -> None:
        url = store.settings()["BUSYAPI_REDIS_URL"]
        url = url.replace("127.0.0.1", first, 1).replace("127.0.0.1", NAME)
        names = {NAME, first, "localhost"}
        self.names = NameService(folder / "names", dict.fromkeys(names, "127.0.0.1"))
        self.stack = Stack(
            folder / "stack",
            store,
            settings={"BUSYAPI_REDIS_URL": url, "BUSYAPI_COMMIT_DEADLINE": "3"},
        )
        self.names.serve(*self.stack.processes)

    def check_works(self) -> None:
        """Post a usage, and wait until it is archived."""
        check_stored(send(self.stack.port, USAGE))
        self.stack.wait_until_archived()


def cut_connections(servers: Sequence[Server]) -> None:
    """Close every client's connection: each must find its server again."""
    for server in servers:
        if server.is_running:
            server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def read_events(process: Process, name: str) -> list[dict[str, str]]:
    """Return the log lines of one event."""
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    return [line for line in lines if line["event"] == name]


def is_detail(process: Process, text: str) -> bool:
    """Return whether a log line's detail contains a text."""
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    return any(text in str(line.get("detail", "")) for line in lines)


@contextmanager
def run_by_name(folder: Path, store: Store, *, first: str = NAME) -> Iterator[Named]:
    """Run a stack that finds its Redis by name, after a check that it works."""
    by_name = Named(folder, store, first=first)
    with closing(by_name.names), by_name.stack:
        by_name.check_works()
        yield by_name


@pytest.fixture
def by_name(tmp_path: Path, valkey: Server) -> Iterator[Named]:
    """A running stack on one server that it finds by name."""
    with run_by_name(tmp_path, valkey) as by_name:
        yield by_name


@pytest.mark.parametrize("failure", ["fail", "mute"])
def test_failed_lookup_is_survived_and_named(by_name: Named, valkey: Server, failure: str) -> None:
    getattr(by_name.names, failure)()
    for _ in range(2):
        cut_connections([valkey])
        by_name.check_works()
    reason = "Temporary failure in name resolution" if failure == "fail" else "no answer within"
    for process in by_name.stack.processes:
        (line, *_) = read_events(process, "dns_lookup_failed")
        assert line["detail"].startswith(f"the DNS lookup of {NAME} failed: {reason}")
        assert line["address"] == "127.0.0.1"
    by_name.names.restore()
    cut_connections([valkey])
    by_name.check_works()


def test_server_that_restarts_with_its_data_is_used(by_name: Named, valkey: Server) -> None:
    by_name.names.fail()
    valkey.restart()
    wait_until(by_name.stack.apis[0].is_ready, "the API to accept the server", seconds=20)
    by_name.check_works()


def test_another_server_at_the_last_address_is_not_used(by_name: Named, valkey: Server) -> None:
    """An empty server must not count as one that has lost its data: the right one still has it."""
    stack = by_name.stack
    by_name.names.fail()
    valkey.stop()
    data = valkey.folder / "appendonlydir"
    data.rename(valkey.folder / "kept")
    valkey.start()
    for process in stack.processes:
        wait_until(
            partial(is_detail, process, "does not hold the record of partition 0"),
            f"{process} to refuse the server",
            seconds=20,
        )
    check_unavailable(send(stack.port, USAGE), "no")
    assert valkey.client().exists(PartitionKeys(0).state, PartitionKeys(0).lease) == 0
    assert not read_events(stack.flushers[0], "ids_skipped")
    valkey.stop()
    valkey.wipe()
    (valkey.folder / "kept").rename(data)
    valkey.start()
    wait_until(stack.apis[0].is_ready, "the API to accept its server", seconds=20)
    by_name.check_works()
    assert not read_events(stack.flushers[0], "ids_skipped")


def test_name_that_moves_during_the_failure_is_followed_after_it(
    by_name: Named, valkey: Server
) -> None:
    by_name.names.fail()
    cut_connections([valkey])
    by_name.check_works()
    # The former server still runs, as the primary before a failover may.
    valkey.command("CONFIG", "SET", "bind", "127.0.0.1 127.0.0.2")
    by_name.names.move(NAME, "127.0.0.2")
    by_name.names.restore()

    def has_moved() -> bool:
        by_name.check_works()
        clients = valkey.client().client_list("normal")
        own = [client for client in clients if not client["lib-name"]]
        return all(client["laddr"].startswith("127.0.0.2:") for client in own)

    wait_until(has_moved, "every connection to move", every=1, seconds=30)


def test_server_at_the_last_address_without_a_flusher_is_not_used(
    by_name: Named, valkey: Server
) -> None:
    """The flusher may have found another server: then nothing would archive this one's usages."""
    (api,), (flusher,) = by_name.stack.apis, by_name.stack.flushers
    by_name.names.fail()
    cut_connections([valkey])
    by_name.check_works()  # on connections that were made before the flusher stopped
    flusher.stop()
    wait_until(partial(is_detail, api, "no flusher holds the lease"), "a refusal", seconds=20)
    wait_until(lambda: send(by_name.stack.port, USAGE).status == 503, "a 503", seconds=20)
    check_unavailable(send(by_name.stack.port, USAGE), "no")
    by_name.names.restore()
    flusher.start()
    wait_until(api.is_ready, "the API to accept the server", seconds=20)
    by_name.check_works()


def test_process_stops_while_a_lookup_waits(by_name: Named, valkey: Server) -> None:
    by_name.names.set_timeout(30, attempts=5)
    by_name.names.mute()
    cut_connections([valkey])
    by_name.check_works()
    assert set(by_name.stack.stop(20).values()) == {0}


def test_process_without_a_last_address_says_that_the_lookup_fails(by_name: Named) -> None:
    by_name.names.fail()
    for process in by_name.stack.processes:
        process.kill9()
        process.spawn()
        message = f"the DNS lookup of {NAME} failed: Temporary failure in name resolution"
        wait_until(
            partial(is_detail, process, message),
            f"{process} to say so",
            seconds=20,
        )
        text = process.log.read_text()
        assert "gaierror" not in text
        assert "TimeoutError" not in text
    by_name.names.restore()
    for process in by_name.stack.processes:
        process.wait_until_ready()
    by_name.check_works()


def test_sentinels_and_a_failover_while_no_name_is_known(tmp_path: Path) -> None:
    with (
        SentinelSet(tmp_path / "sentinels") as sentinels,
        run_by_name(tmp_path, sentinels) as by_name,
    ):
        by_name.names.fail()
        cut_connections(sentinels.servers)
        by_name.check_works()
        assert read_events(by_name.stack.apis[0], "dns_lookup_failed")
        old = sentinels.primary()
        old.kill9()
        sentinels.wait_for_failover(old)
        wait_until(by_name.stack.apis[0].is_ready, "the new primary to be used", seconds=30)
        by_name.check_works()


def test_removed_sentinel_whose_address_has_another_one(tmp_path: Path) -> None:
    with (
        SentinelSet(tmp_path / "sentinels") as sentinels,
        Server(tmp_path / "other") as other,
        run_by_name(tmp_path, sentinels, first=REMOVED) as by_name,
    ):
        by_name.names.remove(REMOVED)
        sentinel, service = sentinels.sentinels[0].client, sentinels.service
        sentinel.sentinel_remove(service)
        sentinel.sentinel_monitor(service, "127.0.0.1", other.port, 1)
        cut_connections(sentinels.servers)
        by_name.check_works()


def test_cluster(tmp_path: Path) -> None:
    with (
        ClusterOfThree(tmp_path / "cluster") as cluster,
        run_by_name(tmp_path, cluster) as by_name,
    ):
        by_name.names.mute()
        cut_connections(cluster.nodes)
        by_name.check_works()
        assert read_events(by_name.stack.apis[0], "dns_lookup_failed")


def test_lookup_of_a_flusher_that_fails_is_named(by_name: Named) -> None:
    api = by_name.stack.apis[0]
    urls = api.environment["BUSYAPI_FLUSHER_URLS"]
    api.environment["BUSYAPI_FLUSHER_URLS"] = urls.replace("127.0.0.1", "flusher.test")
    api.restart()
    check_problem(fetch(api.port, "/api/usages/1"), 503)
    (line,) = read_events(api, "flusher_unreachable")
    assert line["detail"].startswith("the DNS lookup of flusher.test failed: ")
