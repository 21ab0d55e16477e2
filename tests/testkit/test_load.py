"""The load client against a peer with given replies.

The peer does not replace busyapi: it gives replies that a sound busyapi rarely gives.
"""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from testkit.history import Outcome, digest
from testkit.http1 import Answer
from testkit.load import PAUSE_SECONDS, Load, classify_answer
from testkit.ports import reserve_port
from testkit.waiting import wait_until

OK, REFUSED, UNKNOWN = Outcome.OK, Outcome.REFUSED, Outcome.UNKNOWN

NO = (503, {"stored": "no"})
UNSURE = (503, {"stored": "unknown"})
RESET = None

Reply = tuple[int, dict[str, Any]] | None


class Peer(ThreadingHTTPServer):
    """Answers the n-th request, from 1, with `reply(n)`; None resets the connection."""

    request_queue_size = 64

    def __init__(self, port: int, reply: Callable[[int], Reply]) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.reply = reply
        self.requests: list[tuple[str, Any, str | None]] = []
        self.connections: set[int] = set()
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Peer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append((self.path, body, self.headers["Idempotency-Key"]))
            self.server.connections.add(self.client_address[1])
            n = len(self.server.requests)
        reply = self.server.reply(n)
        if reply is None:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            self.close_connection = True
            return
        content = json.dumps(reply[1]).encode()
        self.send_response(reply[0])
        self.send_header("Content-Length", str(len(content)))
        if "last" in reply[1]:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


Peers = Callable[[Callable[[int], Reply]], Peer]


@pytest.fixture
def port() -> int:
    return reserve_port()


@pytest.fixture
def peers(port: int) -> Iterator[Peers]:
    with ExitStack() as running:

        def make(reply: Callable[[int], Reply]) -> Peer:
            peer = running.enter_context(Peer(port, reply))
            running.callback(peer.shutdown)
            threading.Thread(target=peer.serve_forever, args=[0.05], daemon=True).start()
            return peer

        yield make


def test_acknowledged_usages_are_recorded_with_their_ids(port: int, peers: Peers) -> None:
    peer = peers(lambda n: (201, {"id": n}))
    with Load(port, connections=1, requests=3) as load:
        history = load.finish()
    assert [request.ids for request in history.requests] == [(1,), (2,), (3,)]
    assert {path for path, *_ in peer.requests} == {"/api/usages"}
    sent = [digest(body) for _, body, _ in peer.requests]
    assert [request.digests for request in history.requests] == [(name,) for name in sent]
    assert len(set(sent)) == 3
    assert len(peer.connections) == 1
    assert all(request.sent < request.answered for request in history.requests)
    assert str(history) == "3 requests (3 x 201): usages 3 acknowledged, 0 refused, 0 unknown"


def test_batches_are_recorded_in_their_order(port: int, peers: Peers) -> None:
    peer = peers(lambda n: (201, {"ids": [n * 2 - 1, n * 2]}))
    with Load(port, connections=1, batch=2, requests=2) as load:
        history = load.finish()
    assert history.acknowledged == 4
    (path, body, _), _ = peer.requests
    assert path == "/api/usages/batch"
    assert history.requests[0].digests == tuple(map(digest, body))
    assert [request.ids for request in history.requests] == [(1, 2), (3, 4)]


@pytest.mark.parametrize(
    ("status", "content", "outcome"),
    [
        (201, {"id": 7}, OK),
        (503, {"stored": "no"}, REFUSED),
        (422, {}, REFUSED),
        (429, {}, REFUSED),
        (503, {"stored": "unknown"}, UNKNOWN),
        (503, {}, UNKNOWN),
        (503, ["stored", "no"], UNKNOWN),
        (500, {"stored": "no"}, UNKNOWN),
        (502, {}, UNKNOWN),
        (200, {"id": 7}, UNKNOWN),
    ],
)
def test_only_a_clear_refusal_is_taken_for_one(status: int, content: Any, outcome: Outcome) -> None:
    answer = Answer(status, {}, json.dumps(content).encode())
    assert classify_answer(answer, 0) == (outcome, (7,) if outcome is OK else ())


@pytest.mark.parametrize("body", [b"", b"{", b'{"id": "7"}', b'{"id": true}', b'{"ids": [7]}'])
def test_acknowledgement_without_a_readable_id_is_kept_as_one(body: bytes) -> None:
    assert classify_answer(Answer(201, {}, body), 0) == (OK, ())


def test_lost_connection_after_sending_is_unknown(port: int, peers: Peers) -> None:
    peers(lambda n: RESET if n == 2 else (201, {"id": n}))
    with Load(port, connections=1, requests=3) as load:
        history = load.finish()
    assert [request.outcome for request in history.requests] == [OK, UNKNOWN, OK]
    assert history.statuses == {201: 2, 0: 1}


def test_no_answer_in_time_is_unknown(port: int, peers: Peers) -> None:
    over = threading.Event()

    def answer_first_late(n: int) -> Reply:
        if n > 1:
            return 201, {"id": n}
        load.timeout = 20.0  # from the next one on
        assert over.wait(60)
        return RESET

    load = Load(port, connections=1, requests=2, timeout=0.2)
    peers(answer_first_late)
    with load:
        history = load.finish()
        assert not over.is_set()
        over.set()
    assert [request.outcome for request in history.requests] == [UNKNOWN, OK]


def test_unknown_is_repeated_under_its_key_until_it_is_known(port: int, peers: Peers) -> None:
    replies = {1: UNSURE, 2: RESET, 3: NO}
    peer = peers(lambda n: replies.get(n, (201, {"id": 1})))
    with Load(port, connections=1, requests=1, keys=True) as load:
        history = load.finish()
    (request,) = history.requests
    assert request.answered - request.sent >= 3 * PAUSE_SECONDS, "from the first try to the last"
    assert [(request.outcome, request.ids) for request in history.requests] == [(OK, (1,))]
    assert len(peer.requests) == 4
    assert all(request == peer.requests[0] for request in peer.requests)
    assert peer.requests[0][2]


def test_each_usage_has_its_own_key(port: int, peers: Peers) -> None:
    peer = peers(lambda n: (201, {"id": n}))
    with Load(port, requests=20, keys=True) as load:
        load.finish()
    assert len({key for *_, key in peer.requests}) == 20


def test_refusal_after_an_unknown_try_stays_unknown(port: int, peers: Peers) -> None:
    peer = peers(lambda n: UNSURE if n == 1 else NO)
    with Load(port, connections=1, keys=True) as load:
        wait_until(lambda: len(peer.requests) > 2, "refusals")
        history = load.stop()
    assert [request.outcome for request in history.requests] == [UNKNOWN]


def test_refused_usage_is_not_sent_again(port: int, peers: Peers) -> None:
    peer = peers(lambda _: NO)
    with Load(port, connections=1, requests=3, keys=True) as load:
        history = load.finish()
    assert [request.outcome for request in history.requests] == [REFUSED] * 3
    assert len({digest(body) for _, body, _ in peer.requests}) == 3


def test_a_request_without_a_listening_peer_is_sent_later(port: int, peers: Peers) -> None:
    with Load(port, connections=2, requests=4) as load:
        time.sleep(0.2)
        assert not load.history.requests
        peers(lambda n: (201, {"id": n}))
        history = load.finish()
    assert history.acknowledged == 4


def test_a_request_that_was_never_sent_is_in_no_history(port: int) -> None:
    with Load(port, requests=4) as load:
        time.sleep(0.1)
        assert not load.stop().requests


def test_announced_close_of_a_connection_costs_no_request(port: int, peers: Peers) -> None:
    peer = peers(lambda n: (201, {"id": n, "last": True}))
    with Load(port, connections=1, requests=5) as load:
        history = load.finish()
    assert [request.outcome for request in history.requests] == [OK] * 5
    assert len(peer.connections) == 5


def test_stop_waits_for_the_pending_answer(port: int, peers: Peers) -> None:
    def answer_slowly(n: int) -> Reply:
        time.sleep(0.3)
        return 201, {"id": n}

    peer = peers(answer_slowly)
    with Load(port, connections=1) as load:
        wait_until(lambda: peer.requests, "the first request")
        history = load.stop()
    assert [request.outcome for request in history.requests] == [OK] * len(peer.requests)


def test_load_ends_after_its_seconds(port: int, peers: Peers) -> None:
    peers(lambda n: (201, {"id": n}))
    began = time.monotonic()
    with Load(port, connections=2, seconds=0.3) as load:
        load.finish()
    assert 0.3 <= time.monotonic() - began < 5


def test_two_loads_may_write_to_one_history(port: int, peers: Peers) -> None:
    peers(lambda n: (201, {"id": n}))
    with Load(port, requests=10) as one, Load(port, requests=10, history=one.history) as two:
        one.finish()
        two.finish()
    assert one.history.acknowledged == 20
    assert len({name for request in one.history.requests for name in request.digests}) == 20


def test_error_of_the_client_itself_is_raised(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Load, "_message", broken)
    with pytest.raises(ExceptionGroup), Load(port, connections=1) as load:
        load.finish()
