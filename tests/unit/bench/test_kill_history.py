"""The history of kills finds what a system loses."""

import asyncio
from pathlib import Path

import nats
import pytest

from bench.kill_history import find_silences, play, render
from bench.kill_systems import Busyapi, JetStream, System
from bench.peers.nats_cluster import NatsCluster
from bench.peers.nats_http import STREAM
from testkit.checker import Defect, Verdict
from testkit.history import History, Outcome, Request
from testkit.http1 import fetch


class ForgetfulStream(JetStream):
    """JetStream after an acknowledged message was deleted."""

    def check(self, history: History) -> Verdict:
        """Delete the message, then check."""
        first = next(r for r in history.requests if r.outcome is Outcome.OK)
        asyncio.run(self._delete(first.ids[0]))
        return super().check(history)

    async def _delete(self, sequence: int) -> None:
        client = await nats.connect(self.url)
        await client.jetstream().delete_msg(STREAM, sequence)
        await client.close()


@pytest.mark.long
@pytest.mark.parametrize("make", [Busyapi, JetStream])
def test_nothing_is_lost_with_a_primary(make: type[System], tmp_path: Path) -> None:
    record = play(make(tmp_path), "test", ["lose_primary", "promote_paused"])
    assert record.verdict.ok, record.verdict
    assert record.verdict.history.acknowledged > 100
    assert all(0.1 < silence < 60 for silence in record.silences)
    assert f"| test | 2 | {record.verdict.history.acknowledged:,} | 0 |" in render([record])


@pytest.mark.long
def test_a_message_that_the_stream_lost_is_found(tmp_path: Path) -> None:
    record = play(ForgetfulStream(tmp_path), "test", [])
    assert record.verdict.defects[Defect.MISSING] == 1
    assert "| test | 0 |" in render([record])


@pytest.mark.long
def test_the_stream_has_three_replicas_that_sync_always(tmp_path: Path) -> None:
    with NatsCluster(tmp_path) as cluster:
        (leader,) = cluster.find_leaders()
        report = fetch(leader.monitor_port, "/jsz?streams=true&config=true").json()
        assert report["config"]["sync_always"] is True
        ((stream,),) = [account["stream_detail"] for account in report["account_details"]]
        assert stream["config"]["num_replicas"] == 3
        assert stream["config"]["storage"] == "file"


def make_history(*answered: float) -> History:
    """Return a history with a 201 at each time, and a refusal in between."""
    history = History()
    for moment in answered:
        history.add(Request(digests=(b"",), outcome=Outcome.OK, answered=moment))
        history.add(Request(digests=(b"",), outcome=Outcome.REFUSED, answered=moment + 0.5))
    return history


def test_a_silence_is_the_longest_time_without_a_201_after_a_kill() -> None:
    history = make_history(1, 2, 3, 7, 8, 10, 11, 14, 15)
    assert list(find_silences(history, [2.5, 9])) == [4, 3]


def test_a_silence_without_end_is_infinite() -> None:
    assert list(find_silences(make_history(1, 2), [1.5, 5])) == [0.5, float("inf")]
