"""A replica that is silent but connected stops commits for some seconds only."""

import time

from structlog.testing import capture_logs

from testkit.in_process import make_flusher, poll_until, run_committer, run_flusher
from testkit.trio import Trio

LONG_SECONDS = 60
"""How long Redis itself would keep the replica (the default of `repl-timeout`)."""


async def test_silent_replica_leaves_long_before_its_timeout(trio: Trio) -> None:
    silent, kept = trio.replicas
    trio.primary.client().config_set("repl-timeout", LONG_SECONDS)
    flusher = make_flusher(trio.where, trio.archive, tier="replicated")
    async with (
        run_flusher(flusher),
        run_committer(trio.where, tier="replicated", deadline=30.0) as committer,
    ):
        assert await committer.post(b"{}") == 1
        silent.pause()
        with capture_logs() as logs:
            started = time.monotonic()
            assert abs(await committer.post(b"{}")) == 2
            assert time.monotonic() - started < 10  # on a busy machine; usually 4
        assert trio.holders == {trio.primary, kept}
        (line,) = [line for line in logs if line["event"] == "replica_silent"]
        assert line["servers"] == [f"127.0.0.1:{silent.port}"]
        silent.resume()
        await poll_until(lambda: silent in trio.holders, "the replica to hold everything again")
        assert abs(await committer.post(b"{}")) == 3


async def test_silent_replica_stays_if_too_few_others_confirm(trio: Trio) -> None:
    silent, _ = trio.replicas
    trio.primary.client().config_set("repl-timeout", LONG_SECONDS)
    flusher = make_flusher(trio.where, trio.archive, tier="replicated", min_replicas=2)
    async with run_flusher(flusher):
        await poll_until(lambda: len(trio.holders) == 3, "three holders")
        silent.pause()
        await poll_until(lambda: "MIN_REPLICAS is 2" in flusher.not_ready_reason, "a refusal")
        assert silent in trio.holders
        silent.resume()
        await poll_until(lambda: not flusher.not_ready_reason, "it to confirm again")
