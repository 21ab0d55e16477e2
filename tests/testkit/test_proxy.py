import socket
import time
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from testkit.proxy import Direction, Proxy
from testkit.servers import Server
from testkit.waiting import wait_until


@pytest.fixture
def proxy(valkey: Server) -> Iterator[Proxy]:
    with Proxy(valkey.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[redis.Redis]:
    once = Retry(NoBackoff(), 0)
    client = redis.from_url(proxy.url, decode_responses=True, socket_timeout=10, retry=once)
    with client:
        yield client


def test_bytes_pass_both_ways(client: redis.Redis, valkey: Server) -> None:
    large = "x" * 3_000_000
    client.set("a", large)
    assert client.get("a") == valkey.client().get("a") == large


def test_order_is_kept_while_the_latency_falls(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as device:
        for latency in (0.1, 0.05, 0.0):
            proxy.latency = latency
            device.sendall(b"ECHO %g\r\n" % latency)
            time.sleep(0.01)
        answers = [device.makefile("rb", 0).readline() for _ in range(6)]
        assert answers[1::2] == [b"0.1\r\n", b"0.05\r\n", b"0\r\n"]


def test_latency_delays_both_ways(proxy: Proxy, client: redis.Redis) -> None:
    client.ping()
    proxy.latency = 0.1
    began = time.monotonic()
    client.ping()
    assert time.monotonic() - began >= 0.2


def test_cut_resets_connections_and_takes_new_ones(proxy: Proxy, client: redis.Redis) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as device:
        device.sendall(b"PING\r\n")
        assert device.recv(100) == b"+PONG\r\n"
        assert proxy.connections == 1
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            device.recv(100)
    assert client.ping()


def test_refused_until_accepted_again(proxy: Proxy, client: redis.Redis) -> None:
    client.ping()
    proxy.refuse()
    assert client.ping(), "an open connection stays open"
    proxy.reset()
    with pytest.raises(redis.ConnectionError, match="refused"):
        client.ping()
    proxy.accept()
    assert client.ping()


def test_held_request_is_done_when_it_is_released(
    proxy: Proxy, client: redis.Redis, valkey: Server
) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as device:
        device.sendall(b"PING\r\n")
        assert device.recv(100) == b"+PONG\r\n"
        proxy.hold()
        device.sendall(b"SET a late\r\n")
        wait_until(lambda: any(pair.held for pair in proxy._pairs), "the proxy to have it")
    client.set("a", "early")
    assert valkey.client().get("a") == "early", "a new connection passes"
    proxy.release()
    assert valkey.client().get("a") == "late"


def test_muted_connection_is_reset_before_it_could_get_a_later_answer(
    proxy: Proxy, valkey: Server
) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.2) as device:
        proxy.mute()
        device.sendall(b"INCR a\r\n")
        with pytest.raises(TimeoutError):
            device.recv(100)
        wait_until(lambda: any(pair.missed for pair in proxy._pairs), "an answer to be dropped")
        assert valkey.client().get("a") == "1"
        device.settimeout(10)
        proxy.unmute()
        with pytest.raises(ConnectionResetError):
            device.recv(100)


def test_connection_that_missed_nothing_outlives_the_silence(
    proxy: Proxy, client: redis.Redis
) -> None:
    client.ping()
    proxy.mute()
    proxy.unmute()
    assert client.ping()
    assert proxy.connections == 1


def test_lost_answer_is_that_of_a_command_that_was_done(
    proxy: Proxy, client: redis.Redis, valkey: Server
) -> None:
    client.incr("a")
    proxy.lose_answer(to=b"INCR")
    assert client.get("a") == "1", "other commands are answered"
    with pytest.raises(redis.ConnectionError):
        client.incr("a")
    proxy.wait_until_lost()
    assert valkey.client().get("a") == "2"
    assert client.incr("a") == 3, "only one answer is lost"


def test_wait_for_a_lost_answer_ends_if_no_command_comes(proxy: Proxy) -> None:
    proxy.lose_answer(to=b"INCR")
    with pytest.raises(TimeoutError, match="INCR"):
        proxy.wait_until_lost(0.1)


def test_server_that_is_down_looks_down(client: redis.Redis, valkey: Server) -> None:
    client.ping()
    valkey.kill9()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    valkey.start()
    assert client.ping()


@pytest.mark.parametrize("direction", ["ask", "answer"])
def test_servers_are_cut_off_and_clients_are_not(
    proxy: Proxy, client: redis.Redis, valkey: Server, direction: Direction
) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as replica:
        replica.sendall(b"REPLCONF capa eof\r\n")
        assert replica.recv(100) == b"+OK\r\n"
        proxy.cut_servers_off(direction)
        replica.sendall(b"INCR a\r\n")
        replica.settimeout(0.2)
        with pytest.raises(TimeoutError):
            replica.recv(100)
        assert client.ping()
        assert valkey.client().get("a") == (None if direction == "ask" else "1")
        proxy.reconnect_servers()
        with pytest.raises(ConnectionResetError):
            replica.recv(100)
        assert client.ping()
