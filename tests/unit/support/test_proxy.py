import socket
import time
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.proxy import Proxy
from tests.support.servers import Server


@pytest.fixture
def proxy(valkey: Server) -> Iterator[Proxy]:
    with Proxy(valkey.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[redis.Redis]:
    once = Retry(NoBackoff(), 0)
    client = redis.from_url(proxy.url, decode_responses=True, socket_timeout=1, retry=once)
    with client:
        yield client


def test_bytes_pass_both_ways(client: redis.Redis, valkey: Server) -> None:
    large = "x" * 3_000_000
    client.set("a", large)
    assert client.get("a") == valkey.client().get("a") == large


def test_pipelined_commands_keep_their_order_while_the_latency_falls(
    proxy: Proxy, client: redis.Redis
) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for latency in (0.05, 0.02, 0.0):
            proxy.latency = latency
            for n in range(500):
                pipeline.rpush("list", n)
            assert pipeline.execute()[-1] % 500 == 0
    assert client.lrange("list", 0, -1) == [str(n) for n in range(500)] * 3


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
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            device.recv(100)
    assert client.ping()


def test_refused_until_accepted_again(proxy: Proxy, client: redis.Redis) -> None:
    client.ping()
    proxy.refuse()
    assert client.ping(), "a connection there is stays"
    proxy.cut()
    with pytest.raises(redis.ConnectionError, match="refused"):
        client.ping()
    proxy.accept()
    assert client.ping()


def test_muted_answers_never_come_and_their_connection_does_not_come_back(
    proxy: Proxy, client: redis.Redis, valkey: Server
) -> None:
    client.ping()
    proxy.mute()
    with pytest.raises(redis.TimeoutError):
        client.incr("a")
    assert valkey.client().get("a") == "1"
    proxy.unmute()
    assert client.get("a") == "1"


def test_lost_answer_is_that_of_a_command_that_was_done(
    proxy: Proxy, client: redis.Redis, valkey: Server
) -> None:
    client.ping()
    proxy.lose_answer(to=b"INCR")
    assert client.get("a") is None, "other commands are answered"
    with pytest.raises(redis.ConnectionError):
        client.incr("a")
    proxy.wait_until_lost()
    assert valkey.client().get("a") == "1"
    assert client.incr("a") == 2, "only one answer is lost"


def test_answer_that_was_never_due_is_not_waited_for_without_end(proxy: Proxy) -> None:
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
