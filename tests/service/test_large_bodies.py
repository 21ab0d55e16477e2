"""Bodies of 4 MB that arrive at once: connections take turns to be read, and each gets its answer.

A paused connection is read again whatever happens to the others: some stop, some hang up.
"""

import base64
import gzip
import random
import re
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache

import pytest

from busyapi.web.read_turns import MAX_BYTES_PER_TURN
from testkit import mutants
from testkit.api_client import (
    BODY,
    RawConnection,
    check_nothing_stored,
    check_problem,
    check_stored,
    fetch_count,
    render_request,
)
from testkit.broken_build import Mutant, broken_build
from testkit.http1 import Answer
from testkit.processes import Api, Stack
from testkit.waiting import wait_until
from tests.service.conftest import StartApi
from tests.service.test_api_drain import LOOPS

BATCH = "/api/usages/batch"
USAGES = 8_000
MAX_BYTES = 4_194_304
POST = render_request("POST", "/api/usages", BODY)
GET = render_request("GET", "/livez")


@cache
def usages() -> bytes:
    """Return a batch that is as large as one may be, and hardly smaller in gzip."""
    noise = random.Random(7)
    size = MAX_BYTES // USAGES - len(BODY) - 12

    def usage() -> bytes:
        note = base64.b64encode(noise.randbytes(size))[:size]
        return BODY[:-1] + b',"note":"%b"}' % note

    return b"[" + b",".join(usage() for _ in range(USAGES)) + b"]"


def plain() -> bytes:
    return render_request("POST", BATCH, usages())


def packed() -> bytes:
    return render_request(
        "POST", BATCH, gzip.compress(usages(), 1), headers=("Content-Encoding: gzip",)
    )


def chunked() -> bytes:
    body = usages()
    parts = [body[at : at + 100_000] for at in range(0, len(body), 100_000)]
    sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return (
        render_request("POST", BATCH, headers=("Transfer-Encoding: chunked",)) + sent + b"0\r\n\r\n"
    )


LARGE: dict[str, Callable[[], bytes]] = {"plain": plain, "gzip": packed, "chunked": chunked}


@pytest.fixture(scope="module", params=LOOPS)
def api(request: pytest.FixtureRequest, start_api: StartApi) -> Api:
    """A process on each event loop that has room for all bodies of a test."""
    settings = {"BUSYAPI_RECEIVING_BYTES": str(512 << 20), "BUSYAPI_REQUEST_DEADLINE": "60"}
    return start_api(**settings, **LOOPS[request.param])


def whole(answer: Answer) -> None:
    """Check that every usage of the batch has an id."""
    assert answer.status == 201, answer.status
    assert len(set(answer.json()["ids"])) == USAGES


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_body_arrives_whole_with_what_follows_it(
    contract: Stack, api: Api, kind: str
) -> None:
    before = fetch_count(contract.port)
    with RawConnection(api.port, 60) as client:
        client.send(LARGE[kind]() + POST * 3 + GET + POST)
        whole(client.read_answer())
        for _ in range(3):
            check_stored(client.read_answer())
        assert client.read_answer().status == 200
        check_stored(client.read_answer())
        # The connection is read on: with the fast path, by it.
        client.send(POST)
        check_stored(client.read_answer())
        client.send(LARGE[kind]())
        whole(client.read_answer())
    assert fetch_count(contract.port) == before + 2 * USAGES + 5


def test_a_large_body_that_follows_a_usage_arrives_whole(api: Api) -> None:
    """With the fast path its first bytes are held back until the usage is answered."""
    with RawConnection(api.port, 60) as client:
        client.send(POST + plain() + POST)
        check_stored(client.read_answer())
        whole(client.read_answer())
        check_stored(client.read_answer())
        client.send(POST)
        client.send(plain())
        client.send(POST)
        check_stored(client.read_answer())
        whole(client.read_answer())
        check_stored(client.read_answer())


@pytest.mark.parametrize("kind", LARGE)
def test_a_client_that_has_sent_all_gets_its_answers_and_the_end(api: Api, kind: str) -> None:
    with RawConnection(api.port, 60) as client:
        client.send(LARGE[kind]() + POST)
        client.finish_sending()
        whole(client.read_answer())
        check_stored(client.read_answer())
        assert client.is_closed_within(10)


def test_a_large_body_that_ends_too_early_is_dropped(contract: Stack, api: Api) -> None:
    with check_nothing_stored(contract.port), RawConnection(api.port, 60) as client:
        client.send(plain()[:-1])
        client.finish_sending()
        assert client.is_closed_within(10)


def test_every_paused_connection_is_read_again(contract: Stack, api: Api) -> None:
    """Of those that take turns some stop, some hang up, and one sends on after all others."""
    before = fetch_count(contract.port)
    with ExitStack() as clients:
        devices = [clients.enter_context(RawConnection(api.port, 60)) for _ in range(40)]
        for device in devices:
            device.send(plain()[:2_000_000])
        for device in devices[:10]:
            device.reset()
        for device in devices[10:20]:
            device.finish_sending()
        for device in devices[20:24]:
            device.send(plain()[2_000_000:])
        for device in devices[20:24]:
            whole(device.read_answer())
        for device in devices[10:20]:
            assert device.is_closed_within(10)
        wait_until(
            lambda: not any(device.count_unread() for device in devices[24:]), "all to be read"
        )
        devices[-1].send(plain()[2_000_000:] + POST)
        whole(devices[-1].read_answer())
        check_stored(devices[-1].read_answer())
    assert fetch_count(contract.port) == before + 5 * USAGES + 1
    wait_until(lambda: api.read_metric("busyapi_receiving_bytes") == 0, "all bytes to be released")


@pytest.mark.mutants
def test_connections_that_stay_paused_are_caught(start_api: StartApi) -> None:
    api = start_api(**broken_build(mutants.forget_paused_connections))
    with ExitStack() as clients:
        devices = [clients.enter_context(RawConnection(api.port)) for _ in range(10)]
        for device in devices:
            device.send(plain()[:2_000_000])
        with pytest.raises(TimeoutError):
            wait_until(
                lambda: not any(device.count_unread() for device in devices), "all", seconds=3
            )


def test_a_connection_that_waits_for_its_turn_still_has_its_deadline(start_api: StartApi) -> None:
    """And the large bodies of refused requests are dropped in turns too."""
    api = start_api(BUSYAPI_REQUEST_DEADLINE="1", BUSYAPI_RECEIVING_BYTES=str(512 << 20))
    with ExitStack() as clients:
        devices = [clients.enter_context(RawConnection(api.port, 60)) for _ in range(30)]
        for device in devices:
            device.send(plain()[:-1])
        for device in devices:
            check_problem(device.read_answer(), 408)
            assert device.is_closed_within(10)
    with ExitStack() as clients:
        devices = [clients.enter_context(RawConnection(api.port, 60)) for _ in range(30)]
        for device in devices:
            device.send(plain().replace(b"/batch", b"/nowhere", 1) + GET)
        for device in devices:
            check_problem(device.read_answer(), 404)
            assert device.read_answer().status == 200


def measure_share_of_large_turns(start_api: StartApi, *defects: Mutant) -> float:
    """Return the share of bytes that are received in turns of four times the limit and more.

    Many bodies arrive at once. The first bytes of each are received before it waits for a turn.
    """
    build = broken_build(mutants.report_turns, *defects)
    api = start_api(**build, BUSYAPI_RECEIVING_BYTES=str(512 << 20))
    with ExitStack() as clients:
        devices = [clients.enter_context(RawConnection(api.port, 60)) for _ in range(40)]
        for device in devices:
            device.send(plain()[:1000])
        wait_until(lambda: not any(device.count_unread() for device in devices), "the heads")
        senders = [
            threading.Thread(target=device.send, args=(plain()[1000:],)) for device in devices
        ]
        api.pause()
        try:
            for sender in senders:
                sender.start()
            wait_until(lambda: all(device.count_unread() > 0 for device in devices), "the bodies")
        finally:
            api.resume()
        for sender in senders:
            sender.join()
        for device in devices:
            # A slow machine may be too late to decode the last ones.
            assert device.read_answer().status in {201, 503}
    turns = [
        int(size) for size in re.findall(rb"^turn: (\d+)$", api.log.read_bytes(), re.MULTILINE)
    ]
    assert sum(turns) >= 40 * len(usages())
    return sum(size for size in turns if size > 4 * MAX_BYTES_PER_TURN) / sum(turns)


def test_few_bytes_are_received_in_each_turn(start_api: StartApi) -> None:
    """So other clients, which are served between the turns, wait only for these."""
    assert measure_share_of_large_turns(start_api) < 0.25


@pytest.mark.mutants
def test_bodies_that_are_all_read_in_one_turn_are_found(start_api: StartApi) -> None:
    assert measure_share_of_large_turns(start_api, mutants.read_all_in_one_turn) > 0.25
