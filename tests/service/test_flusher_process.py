"""A flusher process, observed through HTTP: stopped, suspended, and seeded again under load."""

from pathlib import Path
from typing import Any

from testkit.archive.builder import find_open_segments
from testkit.history import Outcome
from testkit.http1 import fetch
from testkit.load import Load
from testkit.processes import Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks

BOUND = 1000


def get_counts(stack: Stack) -> dict[str, int]:
    counts: dict[str, int] = fetch(stack.port, "/api/usages/count").json()
    return counts


def count_refusals(stack: Stack) -> float:
    return stack.apis[0].read_metric("busyapi_refused_total", reason="BufferFull")


def wait_for_usages(load: Load, usages: int) -> None:
    """Wait for this many more acknowledged usages."""
    before = load.history.acknowledged
    wait_until(lambda: load.history.acknowledged >= before + usages, f"{usages} usages", seconds=20)


def test_stopped_flusher_finishes_its_segment_and_a_full_buffer_recovers_by_itself(
    valkey: Server, stacks: Stacks
) -> None:
    stack = stacks(valkey, settings={"BUSYAPI_BOUND": str(BOUND)})
    (flusher,) = stack.flushers
    with Load(stack.port, connections=4) as load:
        wait_for_usages(load, 100)
        assert flusher.stop() == 0
        # All its writes are in a finished segment, and Redis has the cursor.
        assert open_segments(stack.archive) == []
        archived = int(valkey.command("HGET", "busyapi:{0}:state", "archived"))
        assert archived > 0
        assert len(list(stack.archive.rglob(f"usages-p00-*-{archived:016d}.ndjson.zst"))) == 1
        # Without a flusher the buffer fills to exactly the bound.
        wait_until(lambda: get_counts(stack)["buffered"] == BOUND, "a full buffer", seconds=30)
        wait_until(lambda: count_refusals(stack) > 10, "refusals", seconds=30)
        assert get_counts(stack) == {
            "count": archived + BOUND,
            "archived": archived,
            "buffered": BOUND,
        }
        flusher.start()
        wait_for_usages(load, 100)
        history = load.stop()
    assert history.usages[Outcome.UNKNOWN] == 0
    stack.wait_until_archived()
    verdict = stack.check_history(history)
    assert verdict.ok, verdict
    assert history.usages[Outcome.REFUSED] > 10
    assert verdict.skipped == 0


def test_full_redis_refuses_and_recovers_and_an_emptied_one_jumps(
    valkey: Server, stacks: Stacks
) -> None:
    stack = stacks(valkey, settings={"BUSYAPI_BOUND": str(BOUND * 100)})
    (flusher,) = stack.flushers
    with Load(stack.port, connections=4, batch=50) as load:
        wait_for_usages(load, 100)
        flusher.pause()
        info: dict[str, Any] = valkey.client().info("memory")
        valkey.client().config_set("maxmemory", int(info["used_memory"]) + 500_000)
        wait_until(lambda: count_refusals(stack) > 10, "refusals", seconds=30)
        flusher.resume()
        wait_for_usages(load, 100)
        history = load.stop()
    assert history.usages[Outcome.UNKNOWN] == 0
    stack.wait_until_archived()
    valkey.client().config_set("maxmemory", 0)

    valkey.stop()
    valkey.wipe()
    valkey.start()
    jumps = "busyapi_epoch_jumps_total"
    wait_until(
        lambda: flusher.is_ready() and flusher.read_metric(jumps) == 1, "the jump", seconds=20
    )
    stack.apis[0].wait_until_ready()
    # The counts do not include skipped ids.
    acknowledged = history.acknowledged
    assert get_counts(stack) == {"count": acknowledged, "archived": acknowledged, "buffered": 0}
    with Load(stack.port, connections=4, requests=100, history=history) as load:
        load.finish()
    assert history.acknowledged >= acknowledged + 90
    stack.wait_until_archived()
    verdict = stack.check_history(history)
    assert verdict.ok, verdict
    assert verdict.skipped == 100 * BOUND + 1


def open_segments(archive: Path) -> list[Path]:
    return find_open_segments(archive)
