"""The holder that the Sentinels prefer to a former primary restarts without its data."""

from pathlib import Path

import pytest

from busyapi.archive.holders import read_holders
from testkit.replicated import STEP_SECONDS, ReplicatedStack, lose, return_to
from testkit.servers import Server
from testkit.waiting import wait_until


def is_preferred(server: Server) -> bool:
    """Return whether a Sentinel prefers a server to one whose priority it assumes."""
    return bool(server.client().config_get("replica-priority")["replica-priority"] == "1")


@pytest.mark.faults
def test_preferred_server_without_its_data_is_not_promotable(tmp_path: Path) -> None:
    replicated = ReplicatedStack(tmp_path, "valkey")
    with replicated.running():
        with replicated.posting():
            old = replicated.sentinels.primary()
            old.kill9()
            new = replicated.sentinels.wait_for_failover(old, STEP_SECONDS)
            (other,) = {*replicated.sentinels.servers} - {old, new}
            wait_until(lambda: is_preferred(other), "a preference", seconds=STEP_SECONDS)
            replicated.wait_for_usages()
            # It waits for its copy for some seconds.
            new.command("CONFIG", "SET", "rdb-key-save-delay", 3_000_000 // new.command("DBSIZE"))
            lose(other)
            return_to(other, new)
            run_id = other.client().info("server")["run_id"]
            wait_until(lambda: is_preferred(other), "the next", seconds=STEP_SECONDS)
            holders = read_holders(replicated.stack.archive / "p00")
            assert holders.processes[f"127.0.0.1:{other.port}"] == run_id
            new.command("CONFIG", "SET", "rdb-key-save-delay", 0)
            return_to(old, new)
            replicated.wait_for_holders()
            wait_until(lambda: not is_preferred(other), "the end of it", seconds=STEP_SECONDS)
            replicated.wait_for_usages()
        verdict = replicated.finish()
    assert verdict.ok, verdict
