"""What the Sentinels say: whether they could fail over, and about a primary that one cannot see."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from busyapi.stream.sentinel import read_primary
from busyapi.stream.sentinel_queries import ASK_TIMEOUT_SECONDS
from busyapi.stream.sentinel_view import read_view
from busyapi.telemetry.metrics import FlusherMetrics
from testkit.in_process import (
    endpoint_of,
    make_flusher,
    poll_until,
    run_flusher,
    wait_until_flushing,
)
from testkit.replicated import CONFIG
from testkit.servers import Server
from testkit.topologies import SentinelSet


async def test_sentinels_without_a_majority_are_reported_while_the_primary_works(
    tmp_path: Path,
) -> None:
    with SentinelSet(tmp_path / "sentinels", config=CONFIG) as sentinels:
        where, archive = endpoint_of(sentinels), tmp_path / "archive"
        metrics = FlusherMetrics("replicated")
        flusher = make_flusher(where, archive, tier="replicated", metrics=metrics)
        first, second, third = sentinels.sentinels

        def is_impossible() -> float | None:
            labels = {"partition": "0"}
            return metrics.registry.get_sample_value("busyapi_failover_impossible", labels)

        with capture_logs() as logs:
            async with run_flusher(flusher):
                assert is_impossible() == 0
                first.kill9()
                second.kill9()
                await poll_until(lambda: is_impossible() == 1, "the metric", seconds=20)
                assert not flusher.not_ready_reason
                third.kill9()
                await poll_until(lambda: len(reasons(logs)) > 1, "another reason", seconds=20)
                for sentinel in sentinels.sentinels:
                    sentinel.start()
                await poll_until(lambda: is_impossible() == 0, "Sentinels again", seconds=30)
        assert "NOQUORUM" in reasons(logs)[0]
        assert "no Sentinel answers" in reasons(logs)


async def test_primary_is_known_without_the_sentinel_beside_it(tmp_path: Path) -> None:
    with SentinelSet(tmp_path / "sentinels", config=CONFIG) as sentinels:
        where, port = endpoint_of(sentinels), sentinels.servers[0].port
        sentinels.sentinels[0].pause()
        async with asyncio.timeout(ASK_TIMEOUT_SECONDS * 0.9):
            primary = await read_primary(where)
        assert primary
        assert primary.address == f"127.0.0.1:{port}"
        assert ("127.0.0.1", sentinels.sentinels[0].port) not in primary.sentinels
        # Every process that looks for the primary may begin with it.
        async with asyncio.timeout(ASK_TIMEOUT_SECONDS * 0.9):
            connection = await where.connect(0)
        assert connection.address == primary.address
        await connection.close()
        # Once it has been waited for, it delays no further decision.
        assert await read_view(where)
        async with asyncio.timeout(ASK_TIMEOUT_SECONDS * 0.6):
            assert await read_view(where)
        sentinels.sentinels[0].resume()


async def test_silent_primary_has_a_promotable_holder_before_the_sentinels_find_it_down(
    tmp_path: Path,
) -> None:
    with SentinelSet(tmp_path / "sentinels", config=CONFIG, down_after_ms=60_000) as sentinels:
        where, archive = endpoint_of(sentinels), tmp_path / "archive"
        primary, holder = sentinels.servers
        flusher = make_flusher(where, archive, tier="replicated")
        async with run_flusher(flusher):
            primary.pause()
            await poll_until(
                lambda: read_priority(holder) == "1", "a promotable holder", seconds=10
            )
            primary.resume()
            await poll_until(lambda: read_priority(holder) == "0", "priority 0 again", seconds=30)
            await wait_until_flushing(flusher)


def read_priority(server: Server) -> str | None:
    """Return the priority of a server."""
    return server.client().config_get("replica-priority")["replica-priority"]


def reasons(logs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return why no failover was possible, as logged."""
    return [log["detail"] for log in logs if log["event"] == "failover_impossible"]
