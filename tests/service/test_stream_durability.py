"""A Redis that does not meet its tier is refused, and the error names the setting to change."""

import os
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from busyapi.errors import DurabilityNotMet
from busyapi.ids import Seq
from busyapi.stream.durability import DurabilityInspector
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.session import Session
from testkit.http1 import fetch
from testkit.in_process import endpoint_of, seed_once
from testkit.processes import Api, Flusher, Stack
from testkit.servers import FLAVOURS, Flavour, Server
from testkit.waiting import wait_until

KEYS = PartitionKeys(0)
USAGE = b'{"patientId":"100","timestamp":0,"medication":"Albuterol"}'


@pytest.fixture
async def seeded(any_server: Server, tmp_path: Path) -> Server:
    await seed_once(endpoint_of(any_server), tmp_path / "archive")
    return any_server


async def open_session(
    server: Server, tier: str = "fsync", inspector: DurabilityInspector | None = None
) -> None:
    inspector = inspector or DurabilityInspector(tier, KEYS)
    session = await Session.open(endpoint_of(server), 0, 1, inspector, Seq(0))
    await session.close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("appendfsync", "no"),
        ("no-appendfsync-on-rewrite", "yes"),
        ("maxmemory-policy", "allkeys-lru"),
    ],
)
async def test_setting_below_the_tier_is_named_with_the_value_to_set(
    seeded: Server, setting: str, value: str
) -> None:
    right = str(seeded.client().config_get(setting)[setting])
    seeded.client().config_set(setting, value)
    with pytest.raises(DurabilityNotMet) as refused:
        await open_session(seeded)
    assert f"{setting} is {value}: set `{setting} {right}`" in str(refused.value)
    seeded.client().config_set(setting, right)
    wait_until(lambda: not is_rewriting(seeded), "the AOF to be active")
    await open_session(seeded)


async def test_each_setting_below_the_tier_is_named(seeded: Server) -> None:
    seeded.client().config_set("appendfsync", "everysec")
    seeded.client().config_set("maxmemory-policy", "volatile-ttl")
    with pytest.raises(DurabilityNotMet, match=r"appendfsync always.*maxmemory-policy noeviction"):
        await open_session(seeded)


async def test_tier_memory_requires_no_file_but_forbids_eviction(seeded: Server) -> None:
    seeded.client().config_set("appendonly", "no")
    await open_session(seeded, "memory")
    seeded.client().config_set("maxmemory-policy", "allkeys-random")
    with pytest.raises(DurabilityNotMet, match="set `maxmemory-policy noeviction`"):
        await open_session(seeded, "memory")


async def test_tier_replicated_requires_a_replica(seeded: Server) -> None:
    with pytest.raises(DurabilityNotMet, match="not yet recorded which replicas"):
        await open_session(seeded, "replicated")


async def test_server_that_hides_its_settings_is_refused(
    tmp_path: Path,
) -> None:
    acl = ["user default on nopass ~* +@all -config"]
    refused = pytest.raises(DurabilityNotMet, match="does not allow CONFIG GET")
    with Server(tmp_path / "server", acl=acl) as server, refused:
        await open_session(server)


# --- whether the AOF is active ------------------------------------------------------------


def slow_down_rewrites(server: Server) -> None:
    """Make a rewrite of the AOF take half a minute."""
    server.command("DEBUG", "POPULATE", 300, "other", 10)
    server.command("CONFIG", "SET", "rdb-key-save-delay", 100_000)


def end_rewrite(server: Server) -> None:
    """End the running rewrite; the next one has no delay."""
    server.command("CONFIG", "SET", "rdb-key-save-delay", 0)
    child = int(
        (server.folder / "server.log").read_text().rsplit("started by pid ", 1)[1].split()[0]
    )
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: not is_rewriting(server), "the rewrite to end", seconds=20)


def is_rewriting(server: Server) -> bool:
    info = server.client().info("persistence")
    return bool(info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])


@pytest.fixture(params=FLAVOURS)
async def slow(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    """A seeded server with slow rewrites."""
    monkeypatch.setattr("busyapi.stream.durability.FSYNC_TIMEOUT_MS", 700)
    config = ["enable-debug-command yes"]
    with Server(tmp_path / "server", request.param, config=config) as server:
        await seed_once(endpoint_of(server), tmp_path / "archive")
        slow_down_rewrites(server)
        yield server


@pytest.mark.parametrize("snapshot", [False, True])
async def test_enabled_log_is_not_active_until_its_first_rewrite_ends(
    slow: Server, *, snapshot: bool
) -> None:
    slow.command("CONFIG", "SET", "appendonly", "no")
    if snapshot:
        slow.command("BGSAVE")
    inspector = DurabilityInspector("fsync", KEYS)
    with pytest.raises(DurabilityNotMet, match="set `appendonly yes`"):
        await open_session(slow, inspector=inspector)
    slow.command("CONFIG", "SET", "appendonly", "yes")
    for _ in range(2):
        with pytest.raises(DurabilityNotMet, match="not active yet"):
            await open_session(slow, inspector=inspector)
    # Without the check this would lose usages: no file has what is in memory.
    assert is_rewriting(slow)
    end_rewrite(slow)
    await open_session(slow, inspector=inspector)


async def test_waitaof_checks_only_writes_of_its_own_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The control of the check: without a write, WAITAOF confirms an AOF that is not active.
    monkeypatch.setattr("busyapi.stream.durability.FSYNC_TIMEOUT_MS", 300)
    with Server(tmp_path / "server", config=["enable-debug-command yes"]) as server:
        slow_down_rewrites(server)
        server.command("CONFIG", "SET", "appendonly", "no")
        server.command("CONFIG", "SET", "appendonly", "yes")
        connection = await endpoint_of(server).connect(0)
        assert (await connection.execute("WAITAOF", 1, 0, 300))[0] == 1
        assert await DurabilityInspector("fsync", KEYS)._probe_aof(connection) is False
        await connection.close()


async def test_rewrite_of_an_active_log_changes_nothing(slow: Server) -> None:
    inspector = DurabilityInspector("fsync", KEYS)
    await open_session(slow, inspector=inspector)
    slow.command("CONFIG", "SET", "maxclients", 5000)
    slow.command("BGREWRITEAOF")
    for _ in range(2):
        assert is_rewriting(slow)
        await open_session(slow, inspector=inspector)


async def test_log_that_was_off_between_two_checks_is_not_active(slow: Server) -> None:
    inspector = DurabilityInspector("fsync", KEYS)
    await open_session(slow, inspector=inspector)
    slow.command("CONFIG", "SET", "appendonly", "no")
    slow.command("CONFIG", "SET", "appendonly", "yes")
    assert is_rewriting(slow)
    with pytest.raises(DurabilityNotMet, match="not active yet"):
        await open_session(slow, inspector=inspector)


def test_processes_are_not_ready_on_a_server_below_its_tier_until_it_is_repaired(
    tmp_path: Path, valkey: Server
) -> None:
    valkey.client().config_set("appendfsync", "everysec")
    stack = Stack(tmp_path / "stack", valkey, settings={"BUSYAPI_COMMIT_DEADLINE": "1"})
    (api,), (flusher,) = stack.apis, stack.flushers
    reason = "appendfsync is everysec: set `appendfsync always`"
    try:
        for process in stack.processes:
            process.spawn()
        for process in (api, flusher):
            wait_until(partial(reports, process, reason), "the reason", seconds=20)
            assert reason in process.tail()
        assert post(api.port) == (503, "no")

        valkey.client().config_set("appendfsync", "always")
        for process in stack.processes:
            process.wait_until_ready()
        assert post(api.port) == (201, "")

        # Changed while it runs: noticed within one recheck of the committer.
        valkey.client().config_set("appendfsync", "everysec")
        started = time.monotonic()
        wait_until(lambda: post(api.port) == (503, "no"), "a refusal", seconds=15)
        assert time.monotonic() - started < 12
        for process in (api, flusher):
            wait_until(partial(reports, process, reason), "the reason")
    finally:
        stack.close()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_usage_stored_after_the_log_was_enabled_survives_a_kill(
    tmp_path: Path, flavour: Flavour
) -> None:
    config = ["appendonly no", "enable-debug-command yes"]
    with Server(tmp_path / "server", flavour, config=config) as server:
        stack = Stack(tmp_path / "stack", server, settings={"BUSYAPI_COMMIT_DEADLINE": "1"})
        (api,), (flusher,) = stack.apis, stack.flushers
        try:
            slow_down_rewrites(server)
            server.command("CONFIG", "SET", "appendonly", "yes")
            for process in stack.processes:
                process.spawn()
            for process in (api, flusher):
                wait_until(partial(reports, process, "not active yet"), "the reason", seconds=20)
            assert post(api.port) == (503, "no")
            assert is_rewriting(server)
            end_rewrite(server)
            for process in stack.processes:
                process.wait_until_ready()
            flusher.pause()
            assert post(api.port) == (201, "")
            server.kill9()
            (server.folder / "server.conf").open("a").write("appendonly yes\n")
            server.start()
            flusher.resume()
            stack.wait_until_archived()
            assert fetch(api.port, "/api/usages/1").status == 200
        finally:
            stack.close()


def reports(process: Api | Flusher, reason: str) -> bool:
    """Return whether a process is not ready and reports this reason."""
    try:
        answer = fetch(process.port, "/readyz", seconds=2)
    except OSError:
        return False
    return answer.status == 503 and reason in answer.body.decode()


def post(port: int) -> tuple[int, str]:
    """Post one usage; return the status and the `stored` member."""
    answer = fetch(
        port,
        "/api/usages",
        method="POST",
        body=USAGE,
        headers={"Content-Type": "application/json"},
        seconds=15,
    )
    return answer.status, answer.json().get("stored", "")
