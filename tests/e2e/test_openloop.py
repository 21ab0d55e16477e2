"""The load of the cluster's scenarios, against a door that fails on purpose."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from busyapi.stream.keys import PartitionKeys
from e2e.openloop import BATCH, OpenLoop
from testkit.ports import reserve_port
from testkit.processes import Stack
from testkit.servers import Server
from testkit.threads import LoopThread
from testkit.waiting import wait_until

RATE = 100.0


class Door:
    """Answers 201 with rising ids, but every tenth request as it is told."""

    def __init__(self, bad: bytes, late: float = 0.0) -> None:
        self.bad = bad
        self.late = late
        """Seconds until it answers."""
        self.port = reserve_port()
        self.asked = 0
        self.hosts: set[str] = set()
        self._loop = LoopThread("door")
        self._loop.start()
        self._loop.run_step(self._listen)

    async def _listen(self) -> None:
        await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.rpartition("Content-Length: ")[2])
                await reader.readexactly(length)
                self.hosts.add(head.partition("Host: ")[2].splitlines()[0])
                self.asked += 1
                number = self.asked
                await asyncio.sleep(self.late)
                body = b'{"id":%d}' % number
                answer = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                writer.write(self.bad if number % 10 == 0 else answer)
                if number % 10 == 0 and not self.bad:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    def close(self) -> None:
        self._loop.close()


@pytest.fixture(
    params=[b"", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"], ids=["reset", "502"]
)
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    made = Door(request.param)
    yield made
    made.close()


def test_every_request_is_counted_and_none_is_repeated(door: Door) -> None:
    with OpenLoop(door.port, "somewhere.test", RATE) as load:
        time.sleep(1.0)
        seen = load.stop()
    assert door.hosts == {"somewhere.test"}
    assert seen.sent == door.asked == seen.answered + seen.failed
    assert seen.failed == door.asked // 10 > 0
    assert len({each.digests for each in load.history.requests}) == seen.sent


def test_nobody_listening_is_a_failure_and_not_in_the_history() -> None:
    with OpenLoop(reserve_port(), "nowhere.test", RATE) as load:
        time.sleep(0.3)
        seen = load.stop()
    assert seen.failed == seen.sent > 0
    assert not load.history.requests


def test_no_answer_is_waited_for_and_the_rate_is_not_exceeded() -> None:
    door = Door(b"", late=5.0)
    began = time.monotonic()
    with OpenLoop(door.port, "somewhere.test", RATE) as load:
        wait_until(lambda: load.offered >= 50, "half a second's requests")
        assert not load.samples
        load.stop()
    door.close()
    assert load.offered <= RATE * (time.monotonic() - began) + 1


def test_a_mixed_load_is_every_kind_of_post_and_is_reconciled(tmp_path: Path) -> None:
    with Server(tmp_path / "server") as server, Stack(tmp_path, server) as stack:
        with OpenLoop(stack.port, "somewhere.test", RATE, mixed=True) as load:
            wait_until(lambda: load.offered >= 40, "forty requests")
            seen = load.stop()
        stack.wait_until_archived()
        issued = server.command("GET", PartitionKeys(0).seq)
        stack.stop()
        verdict = stack.check_history(load.history)
    assert verdict.ok, verdict
    assert seen.failed == 0
    sizes = {len(each.digests) for each in load.history.requests}
    assert sizes == {1, BATCH}
    assert int(issued) == verdict.archived == load.history.acknowledged
