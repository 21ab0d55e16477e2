"""SIGTERM: not ready at once, every accepted request answered, gone in time with exit code 0."""

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
"""Seconds from SIGTERM to the end: the delay, and time enough on a busy machine."""

LOOPS: dict[str, dict[str, str]] = {"uvloop": {}, "asyncio": {"SANIC_USE_UVLOOP": "false"}}
"""What makes Sanic take each; uvloop is its default."""


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """Each event loop in turn."""
    name: str = request.param
    return name


@pytest.fixture
def stack(loop: str, stacks: Stacks, valkey: Server) -> Stack:
    """A stack that drains for `DELAY`."""
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
        assert time.monotonic() - started < DELAY, "that is after the delay, not at once"
        idle.send(render_request("GET", "/readyz"))
        said = idle.read_answer()
        assert said.body == b"draining: draining\npartition: ok\ndurability: ok\n"
        assert idle.is_closed_within(5), "an idle connection is let go with its next answer"
        drained = load.history.acknowledged
        answer = send(stack.port, USAGE)
        number = check_stored(answer)
        assert answer.headers["connection"] == "close"
        wait_until(lambda: load.history.acknowledged > drained, "it to go on taking usages")
        # By now the endpoints have forgotten this process, and nobody asks it any more.
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


def test_what_is_under_way_when_the_port_closes_is_still_answered(
    stack: Stack, valkey: Server
) -> None:
    api = stack.apis[0]
    valkey.pause()
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(send, stack.port, USAGE) for _ in range(20)]
        wait_until(
            lambda: api.read_metric("busyapi_pending_usages") == 20, "usages to be under way"
        )
        api.terminate()
        wait_until(lambda: closed(stack.port), "the port to close", seconds=15)
        assert api.is_running
        assert not any(each.done() for each in waiting)
        valkey.resume()
        answers = [each.result(20) for each in waiting]
    assert len({check_stored(each) for each in answers}) == 20
    assert {each.headers["connection"] for each in answers} == {"close"}
    assert api.wait(GRACE) == 0
    api.start()
    assert fetch_count(stack.port) == 20


def closed(port: int) -> bool:
    """Say whether nobody listens any more."""
    try:
        RawConnection(port, seconds=1).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it closed just now
    return False


def test_idle_and_half_sent_requests_do_not_hold_the_process_up(
    loop: str, stacks: Stacks, valkey: Server
) -> None:
    settings = {"BUSYAPI_REQUEST_DEADLINE": "1", "BUSYAPI_STOP_TIMEOUT": "5", **LOOPS[loop]}
    stack = stacks(valkey, settings=settings)
    connections = [RawConnection(stack.port) for _ in range(30)]
    for each in connections[:10]:
        each.send(render_request("POST", "/api/usages", BODY)[:-10])
    for each in connections[10:20]:
        each.send(render_request("GET", "/livez"))
        assert each.read_answer().status == 200
    started = time.monotonic()
    assert stack.apis[0].stop() == 0
    assert time.monotonic() - started < GRACE


def acknowledged(load: Load, usages: int) -> bool:
    """Say whether so many have been acknowledged."""
    return load.history.acknowledged >= usages


def test_a_rolling_restart_under_load_loses_nothing(stacks: Stacks, valkey: Server) -> None:
    stack = stacks(valkey, apis=2, settings={"BUSYAPI_DRAIN_DELAY": "0.5"})
    with Load(stack.port, connections=16) as load:
        for api in stack.apis:
            enough = load.history.acknowledged + 50
            wait_until(partial(acknowledged, load, enough), "the load to go on")
            assert api.stop(GRACE) == 0
            api.start()
        history = load.stop()
    stack.wait_until_archived()
    verdict = stack.check_history(history)
    assert verdict.ok, verdict
    # A connection that waits to be accepted when its listener closes is reset by the kernel;
    # one that was accepted is answered.
    assert history.usages[Outcome.REFUSED] == 0, history
    assert history.usages[Outcome.UNKNOWN] < 100, history
