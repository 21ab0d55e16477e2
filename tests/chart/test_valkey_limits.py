"""Connections that never log in must not keep pods out of the bundled Valkey."""

import contextlib
import socket
import time
from pathlib import Path

import pytest

from busyapi.commit.lane import RECHECK_SECONDS
from testkit.api_client import USAGE, send, stored
from testkit.chart.rendering import Json, of_kind, one, render
from testkit.processes import Stack
from testkit.servers import Server
from testkit.waiting import wait_until

PLACES = 20
SILENCE = 6


def conf() -> dict[str, str]:
    """What the chart's valkey.conf says, the last line of a name counts."""
    text: str = one(render(), "ConfigMap", "busyapi-valkey")["data"]["valkey.conf"]
    lines = (line.split(" ", 1) for line in text.splitlines() if line and line[0] != "#")
    return dict(lines)


def fill(server: Server, sockets: contextlib.ExitStack) -> int:
    """Connect without a word until the server has no place left; give the number of connections."""
    for made in range(PLACES + 1):
        silent = sockets.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
        silent.settimeout(0.2)
        try:
            refused = silent.recv(100)
        except TimeoutError:
            continue
        assert b"max number of clients" in refused
        return made
    raise AssertionError("more connections than maxclients")


def test_the_chart_bounds_clients_and_their_silence() -> None:
    said = conf()
    assert int(said["maxclients"]) >= 1000
    # A committer that has nothing to send asks every RECHECK_SECONDS: it must not be closed.
    assert 3 * RECHECK_SECONDS <= int(said["timeout"]) <= 60


@pytest.mark.parametrize(("timeout", "freed"), [(SILENCE, True), (0, False)])
def test_silent_connections_give_their_places_back(
    tmp_path: Path, timeout: int, *, freed: bool
) -> None:
    lines = [f"maxclients {PLACES}", f"timeout {timeout}"]
    with Server(tmp_path / "server", config=lines) as server, Stack(tmp_path, server) as stack:
        stored(send(stack.port, USAGE))
        stack.wait_until_archived()
        with contextlib.ExitStack() as sockets:
            assert fill(server, sockets) > 0
            assert stored(send(stack.port, USAGE)) == 2, "who is connected stays connected"
            seconds = SILENCE * 2.0
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and not accepted(server):
                time.sleep(0.5)
            assert accepted(server) == freed
        wait_until(lambda: accepted(server), "a place", seconds=20)
        assert stored(send(stack.port, USAGE)) == 3


def accepted(server: Server) -> bool:
    """Say whether the server takes one more connection."""
    with socket.create_connection(("127.0.0.1", server.port), 5) as probe:
        probe.settimeout(2)
        probe.sendall(b"PING\r\n")
        try:
            return probe.recv(100).startswith(b"+PONG")
        except OSError:
            return False


@pytest.mark.parametrize(
    ("values", "made"),
    [
        ({}, True),
        ({"networkPolicy": {"enabled": True, "valkey": {"enabled": False}}}, True),
        ({"networkPolicy": {"valkey": {"enabled": False}}}, False),
        # The values that `helm upgrade --reuse-values` brings from 0.2.0.
        ({"networkPolicy": {"valkey": {"enabled": None}}}, True),
    ],
)
def test_only_this_release_connects_to_valkey(values: Json, *, made: bool) -> None:
    names = {each["metadata"]["name"] for each in of_kind(render(values), "NetworkPolicy")}
    assert ("busyapi-valkey" in names) is made
