"""Connections that never log in do not lock pods out of the bundled Valkey."""

import contextlib
import socket
import time
from pathlib import Path

import pytest

from busyapi.commit.committer import RECHECK_INTERVAL_SECONDS
from testkit.api_client import USAGE, check_stored, send
from testkit.chart.rendering import Json, find_object, of_kind, render
from testkit.processes import Stack
from testkit.servers import Server
from testkit.waiting import wait_until

MAX_CLIENTS = 20
TIMEOUT_SECONDS = 6


def read_conf() -> dict[str, str]:
    """Return the settings of the chart's valkey.conf. The last line of a name wins."""
    text: str = find_object(render(), "ConfigMap", "busyapi-valkey")["data"]["valkey.conf"]
    lines = (line.split(" ", 1) for line in text.splitlines() if line and line[0] != "#")
    return dict(lines)


def open_silent_connections(server: Server, sockets: contextlib.ExitStack) -> int:
    """Open silent connections until the server refuses one, and return their number."""
    for count in range(MAX_CLIENTS + 1):
        connection = sockets.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
        connection.settimeout(0.2)
        try:
            reply = connection.recv(100)
        except TimeoutError:
            continue
        assert b"max number of clients" in reply
        return count
    raise AssertionError("more connections than maxclients")


def test_chart_limits_clients_and_idle_time() -> None:
    settings = read_conf()
    assert int(settings["maxclients"]) >= 1000
    # An idle committer sends a command every RECHECK_INTERVAL_SECONDS, so it is never closed.
    assert 3 * RECHECK_INTERVAL_SECONDS <= int(settings["timeout"]) <= 60


@pytest.mark.parametrize(("timeout", "freed"), [(TIMEOUT_SECONDS, True), (0, False)])
def test_silent_connections_are_closed_after_the_timeout(
    tmp_path: Path, timeout: int, *, freed: bool
) -> None:
    lines = [f"maxclients {MAX_CLIENTS}", f"timeout {timeout}"]
    with Server(tmp_path / "server", config=lines) as server, Stack(tmp_path, server) as stack:
        check_stored(send(stack.port, USAGE))
        stack.wait_until_archived()
        with contextlib.ExitStack() as sockets:
            assert open_silent_connections(server, sockets) > 0
            assert check_stored(send(stack.port, USAGE)) == 2, "existing connections stay open"
            seconds = TIMEOUT_SECONDS * 2.0
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and not is_accepting(server):
                time.sleep(0.5)
            assert is_accepting(server) == freed
        wait_until(lambda: is_accepting(server), "a free connection", seconds=20)
        assert check_stored(send(stack.port, USAGE)) == 3


def is_accepting(server: Server) -> bool:
    """Return whether the server accepts one more connection."""
    with socket.create_connection(("127.0.0.1", server.port), 5) as probe:
        probe.settimeout(2)
        probe.sendall(b"PING\r\n")
        try:
            return probe.recv(100).startswith(b"+PONG")
        except OSError:
            return False


@pytest.mark.parametrize(
    ("values", "exists"),
    [
        ({}, True),
        ({"networkPolicy": {"enabled": True, "valkey": {"enabled": False}}}, True),
        ({"networkPolicy": {"enabled": False}}, True),
        ({"networkPolicy": {"enabled": False, "valkey": {"enabled": False}}}, False),
        # The values of `helm upgrade --reuse-values` from 0.2.0.
        ({"networkPolicy": {"enabled": False, "valkey": {"enabled": None}}}, True),
    ],
)
def test_only_this_release_may_connect_to_valkey(values: Json, *, exists: bool) -> None:
    names = {document["metadata"]["name"] for document in of_kind(render(values), "NetworkPolicy")}
    assert ("busyapi-valkey" in names) is exists
