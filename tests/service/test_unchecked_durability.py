"""Servers that refuse CONFIG GET: what is checked all the same, and what BUSYAPI_REDIS_TRUST adds.

A managed service takes CONFIG away, here with `rename-command`. An ACL may, so that busyapi cannot
read the passwords in the settings.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from busyapi.errors import DurabilityNotMet
from busyapi.ids import Seq
from busyapi.stream.durability import DurabilityInspector, ServerInfo
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.session import Session
from testkit.api_client import USAGE, check_stored, send
from testkit.archive_reader import read_archive
from testkit.http1 import fetch
from testkit.in_process import endpoint_of, run_committer, seed_once
from testkit.load import Load
from testkit.processes import Process, Stack
from testkit.servers import FLAVOURS, Flavour, Server
from testkit.slow_disk import slow_down_fsync
from testkit.waiting import wait_until

KEYS = PartitionKeys(0)
RENAMED = ('rename-command CONFIG ""',)
ACL = ("user default on nopass ~* &* +@all -config",)
TRUSTS = ("appendfsync", "service-log")


def make_server(folder: Path, flavour: Flavour, how: str, config: Sequence[str] = ()) -> Server:
    if how == "renamed":
        return Server(folder, flavour, config=(*RENAMED, *config))
    return Server(folder, flavour, acl=ACL if how == "acl" else (), config=config)


async def inspect(server: Server, trust: str, tier: str = "fsync") -> ServerInfo:
    connection = await endpoint_of(server).connect(0)
    try:
        return await DurabilityInspector(tier, KEYS, trust=trust).inspect(connection)
    finally:
        await connection.close()


@pytest.mark.parametrize("how", ["renamed", "acl"])
async def test_without_trust_it_is_refused_with_the_ways_out(
    tmp_path: Path, flavour: Flavour, how: str
) -> None:
    with make_server(tmp_path / "server", flavour, how) as server:
        endpoint = endpoint_of(server)
        with pytest.raises(DurabilityNotMet) as refused:
            await seed_once(endpoint, tmp_path / "archive")
        message = str(refused.value)
        assert "appendfsync, no-appendfsync-on-rewrite cannot be checked" in message
        for part in (
            "`+config|get`",
            "BUSYAPI_REDIS_TRUST=appendfsync, but only if",
            "a 201 would",
        ):
            assert part in message
        assert "maxmemory-policy" not in message, "INFO reports it"


@pytest.mark.parametrize("how", ["renamed", "acl"])
async def test_with_trust_usages_are_stored(tmp_path: Path, flavour: Flavour, how: str) -> None:
    with make_server(tmp_path / "server", flavour, how) as server:
        endpoint = replace(endpoint_of(server), trust="appendfsync")
        assert await seed_once(endpoint, tmp_path / "archive") == "fresh install"
        async with run_committer(endpoint) as committer:
            await committer.wait_until_ready()
            assert await committer.post(b"{}") == 1
            assert committer.committer.inspector.trust == "appendfsync"


@pytest.mark.parametrize("trust", TRUSTS)
@pytest.mark.parametrize(
    ("line", "setting"),
    [
        ("appendonly no", "appendonly"),
        ("appendfsync everysec", "appendfsync"),
        ("no-appendfsync-on-rewrite yes", "no-appendfsync-on-rewrite"),
        ("maxmemory-policy allkeys-lru", "maxmemory-policy"),
    ],
)
async def test_trust_has_no_effect_where_config_get_is_allowed(
    tmp_path: Path, flavour: Flavour, trust: str, line: str, setting: str
) -> None:
    with make_server(tmp_path / "server", flavour, "allowed", [line]) as server:
        info = await inspect(server, trust)
        assert f"{setting} is {line.split()[1]}: set" in info.durability_error
        assert info.trust == ""


@pytest.mark.parametrize("trust", TRUSTS)
async def test_what_info_contradicts_is_refused(
    tmp_path: Path, flavour: Flavour, trust: str
) -> None:
    config = ("maxmemory-policy volatile-lru", "appendonly no")
    with make_server(tmp_path / "server", flavour, "renamed", config) as server:
        error = (await inspect(server, trust)).durability_error
    assert "maxmemory-policy is volatile-lru: set `maxmemory-policy noeviction`" in error
    assert ("appendonly is no: set `appendonly yes`" in error) is (trust == "appendfsync")


async def test_service_log_needs_no_append_only_file(tmp_path: Path, flavour: Flavour) -> None:
    with make_server(tmp_path / "server", flavour, "renamed", ["appendonly no"]) as server:
        info = await inspect(server, "service-log")
        assert (info.durability_error, info.trust) == ("", "service-log")
        assert "cannot be checked" not in (await inspect(server, "", "memory")).durability_error


async def test_tier_memory_is_checked_without_config(tmp_path: Path, flavour: Flavour) -> None:
    with make_server(tmp_path / "server", flavour, "acl") as server:
        info = await inspect(server, "appendfsync", "memory")
        assert (info.durability_error, info.trust) == ("", "")
        server.stop()
    config = ["maxmemory-policy allkeys-lfu"]
    with make_server(tmp_path / "other", flavour, "acl", config) as server:
        error = (await inspect(server, "", "memory")).durability_error
        assert "maxmemory-policy is allkeys-lfu" in error


# --- a wrong trust ----------------------------------------------------------------------------


async def test_trust_in_a_server_that_never_syncs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("busyapi.stream.durability.FSYNC_TIMEOUT_MS", 1500)
    with make_server(tmp_path / "server", "valkey", "acl", ["appendfsync no"]) as server:
        error = (await inspect(server, "appendfsync")).durability_error
        assert "`appendfsync always`" in error
        assert "BUSYAPI_REDIS_TRUST is wrong" in error


async def test_trust_is_refused_once_a_background_fsync_was_seen(
    tmp_path: Path, flavour: Flavour
) -> None:
    server = make_server(tmp_path / "server", flavour, "acl", ["appendfsync everysec"])
    slow_down_fsync(server, 300)
    with server:
        connection = await endpoint_of(server).connect(0)
        inspector = DurabilityInspector("fsync", KEYS, trust="appendfsync")
        for _ in range(10):
            # After a second without writes, the probe of the next check starts an fsync.
            if error := (await inspector.inspect(connection)).durability_error:
                break
            await asyncio.sleep(1.1)
        assert "BUSYAPI_REDIS_TRUST is wrong" in error
        for _ in range(20):
            assert (await inspector.inspect(connection)).durability_error == error
        await connection.close()
        # A corrected server has another run_id.
        server.stop()
        (server.folder / "server.conf").open("a").write("appendfsync always\n")
        server.start()
        connection = await endpoint_of(server).connect(0)
        assert (await inspector.inspect(connection)).durability_error == ""
        await connection.close()


async def test_right_trust_is_never_refused(tmp_path: Path) -> None:
    with make_server(tmp_path / "server", "valkey", "acl") as server:
        endpoint = replace(endpoint_of(server), trust="appendfsync")
        await seed_once(endpoint, tmp_path / "archive", bound=10_000)
        connection = await endpoint.connect(0)
        inspector = DurabilityInspector("fsync", KEYS, trust="appendfsync")
        async with run_committer(endpoint) as committer:
            await committer.wait_until_ready()
            for _ in range(100):
                posts = [committer.post(b'{"a":1}') for _ in range(20)]
                assert (await inspector.inspect(connection)).durability_error == ""
                await asyncio.gather(*posts)
        await connection.close()


# --- processes --------------------------------------------------------------------------------


def test_probes_and_metrics_say_that_durability_is_trusted(
    tmp_path: Path, flavour: Flavour
) -> None:
    settings = {"BUSYAPI_REDIS_TRUST": "appendfsync"}
    state = "durability: trusted, not checked (BUSYAPI_REDIS_TRUST=appendfsync)\n"
    with (
        make_server(tmp_path / "server", flavour, "renamed") as server,
        Stack(tmp_path / "stack", server, settings=settings) as stack,
    ):
        for process in (stack.apis[0], stack.flushers[0]):
            answer = fetch(process.port, "/readyz")
            assert (answer.status, state in answer.body.decode()) == (200, True)
            assert process.read_metric("busyapi_durability_trusted") == 1
            assert process.read_metric("busyapi_durability_met") == 1
            assert '"event": "durability_trusted"' in process.log.read_text()


def test_a_restart_of_a_trusted_server_skips_ids(tmp_path: Path) -> None:
    # If the trust is wrong, the restart has lost usages, and none of their ids may come again.
    settings = {"BUSYAPI_REDIS_TRUST": "appendfsync", "BUSYAPI_BOUND": "1000"}
    server = make_server(tmp_path / "server", "redis", "renamed")
    with server, Stack(tmp_path / "stack", server, settings=settings) as stack:
        with Load(stack.port, connections=2, requests=50) as load:
            load.finish()
        stack.wait_until_archived()
        server.kill9()
        server.start()
        wait_until(lambda: send(stack.port, USAGE).status == 201, "the API to continue", seconds=20)
        assert check_stored(send(stack.port, USAGE)) > 1000
        stack.wait_until_archived()
        assert len(read_archive(stack.archive).partition(0).gaps) == 1
        assert "after doubt: its durability is trusted" in stack.flushers[0].log.read_text()


def test_without_config_and_trust_no_process_is_ready(tmp_path: Path, flavour: Flavour) -> None:
    with make_server(tmp_path / "server", flavour, "renamed") as server:
        stack = Stack(tmp_path / "stack", server, settings={"BUSYAPI_COMMIT_DEADLINE": "1"})
        try:
            for process in (stack.apis[0], stack.flushers[0]):
                process.spawn()
                wait_until(partial(has_logged, process, "BUSYAPI_REDIS_TRUST"), "the reason")
                answer = fetch(process.port, "/readyz")
                assert answer.status == 503
                assert "cannot be checked" in answer.body.decode()
            assert stack.apis[0].read_metric("busyapi_durability_trusted") == 0
        finally:
            stack.close()


def has_logged(process: Process, text: str) -> bool:
    return text in process.tail()


async def open_session(endpoint: Endpoint) -> None:
    inspector = DurabilityInspector("fsync", KEYS, trust=endpoint.trust)
    await (await Session.open(endpoint, 0, 1, inspector, Seq(0))).close()


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_user_without_config_get_cannot_read_passwords(
    tmp_path: Path, flavour: Flavour
) -> None:
    with make_server(tmp_path / "server", flavour, "acl") as server:
        endpoint = replace(endpoint_of(server), trust="appendfsync")
        await seed_once(endpoint, tmp_path / "archive")
        await open_session(endpoint)
        connection = await endpoint.connect(0)
        (reply,) = await connection.pipeline(("CONFIG", "GET", "requirepass"))
        assert "NOPERM" in str(reply)
        await connection.close()
