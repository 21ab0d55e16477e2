"""SIGTERM: readiness fails at once, accepted requests are answered, and the exit code is 0."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from testkit.api_client import (
    BODY,
    USAGE,
    RawConnection,
    check_stored,
    fetch_count,
    render_request,
    send,
)
from testkit.history import Outcome
from testkit.http1 import fetch
from testkit.load import Load
from testkit.processes import Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks

DELAY = 3.0
GRACE = 25.0
"""Seconds from SIGTERM to the end: the delay, and enough time for a busy machine."""

LOOPS: dict[str, dict[str, str]] = {"uvloop": {}, "asyncio": {"SANIC_USE_UVLOOP": "false"}}
"""Settings that make Sanic use each loop; uvloop is its default."""


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """Each event loop in turn."""
    name: str = request.param
    return name


@pytest.fixture
def stack(loop: str, stacks: Stacks, valkey: Server) -> Stack:
    """A stack with a drain delay of `DELAY`."""
    settings = {
        "BUSYAPI_DRAIN_DELAY": str(DELAY),
        "BUSYAPI_COMMIT_DEADLINE": "30",
        **LOOPS[loop],
    }
    stack = stacks(valkey, settings=settings)
    assert f'"loop": "{loop}"' in stack.apis[0].log.read_text()
    return stack


def test_a_drain_under_load_answers_every_request_and_ends_with_0(stack: Stack) -> None:
    api = stack.apis[0]
    with Load(stack.port, connections=16) as load, RawConnection(stack.port) as idle:
        wait_until(lambda: load.history.acknowledged > 50, "the load to run")
        idle.send(render_request("GET", "/readyz"))
        assert idle.read_answer().headers["connection"] == "keep-alive"
        api.terminate()
        started = time.monotonic()
        wait_until(lambda: fetch(stack.port, "/readyz").status == 503, "readyz to fail")
        assert time.monotonic() - started < DELAY, "readyz failed after the delay, not at once"
        idle.send(render_request("GET", "/readyz"))
        answer = idle.read_answer()
        assert answer.body == b"draining: draining\npartition: ok\ndurability: ok\n"
        assert idle.is_closed_within(5), "the idle connection is open after its next answer"
        drained = load.history.acknowledged
        answer = send(stack.port, USAGE)
        number = check_stored(answer)
        assert answer.headers["connection"] == "close"
        wait_until(lambda: load.history.acknowledged > drained, "it to store more usages")
        # In a cluster the endpoints no longer list this process by now, so clients stop.
        history = load.stop()
        assert history.statuses.keys() == {201}, history
        assert api.wait(GRACE) == 0
        assert time.monotonic() - started < GRACE
    with pytest.raises(ConnectionRefusedError):
        fetch(stack.port, "/livez")
    api.start()
    assert fetch(stack.port, f"/api/usages/{number}").json()["usage"] == USAGE
    stack.wait_until_archived()
    assert fetch_count(stack.port) == history.acknowledged + 1
    events = [line for line in api.log.read_text().splitlines() if '"event"' in line]
    assert any('"draining"' in line for line in events)
    assert any('"api_stopped"' in line for line in events)


def test_pending_requests_are_answered_after_the_port_closes(stack: Stack, valkey: Server) -> None:
    api = stack.apis[0]
    valkey.pause()
    with ThreadPoolExecutor(20) as pool:
        futures = [pool.submit(send, stack.port, USAGE) for _ in range(20)]
        wait_until(lambda: api.read_metric("busyapi_pending_usages") == 20, "usages to be pending")
        api.terminate()
        wait_until(lambda: is_closed(stack.port), "the port to close", seconds=15)
        assert api.is_running
        assert not any(future.done() for future in futures)
        valkey.resume()
        answers = [future.result(20) for future in futures]
    assert len({check_stored(answer) for answer in answers}) == 20
    assert {answer.headers["connection"] for answer in answers} == {"close"}
    assert api.wait(GRACE) == 0
    api.start()
    assert fetch_count(stack.port) == 20


def is_closed(port: int) -> bool:
    """Return whether no process listens on a port."""
    try:
        RawConnection(port, seconds=1).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it has just closed
    return False


def test_idle_and_half_sent_requests_do_not_delay_the_stop(
    loop: str, stacks: Stacks, valkey: Server
) -> None:
    settings = {"BUSYAPI_REQUEST_DEADLINE": "1", "BUSYAPI_STOP_TIMEOUT": "5", **LOOPS[loop]}
    stack = stacks(valkey, settings=settings)
    connections = [RawConnection(stack.port) for _ in range(30)]
    for connection in connections[:10]:
        connection.send(render_request("POST", "/api/usages", BODY)[:-10])
    for connection in connections[10:20]:
        connection.send(render_request("GET", "/livez"))
        assert connection.read_answer().status == 200
    started = time.monotonic()
    assert stack.apis[0].stop() == 0
    assert time.monotonic() - started < GRACE


def has_acknowledged(load: Load, usages: int) -> bool:
    """Return whether this many usages are acknowledged."""
    return load.history.acknowledged >= usages


def test_a_rolling_restart_under_load_loses_nothing(stacks: Stacks, valkey: Server) -> None:
    stack = stacks(valkey, apis=2, settings={"BUSYAPI_DRAIN_DELAY": "0.5"})
    with Load(stack.port, connections=16) as load:
        for api in stack.apis:
            goal = load.history.acknowledged + 50
            wait_until(partial(has_acknowledged, load, goal), "the load to continue")
            assert api.stop(GRACE) == 0
            api.start()
        history = load.stop()
    stack.wait_until_archived()
    verdict = stack.check_history(history)
    assert verdict.ok, verdict
    # The kernel resets a connection that waits to be accepted when its listener closes.
    # An accepted connection is answered.
    assert history.usages[Outcome.REFUSED] == 0, history
    assert history.usages[Outcome.UNKNOWN] < 100, history
