"""A running stack for the documents' commands; the Redis has the users that the chart gives it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.api_client import USAGE, send, stored
from testkit.processes import Stack
from testkit.servers import Server

# As on a cluster: nobody is `default`, the flusher's user looks, the probe's may only PING.
USERS = (
    "user default off ~* &* +@all",
    "user flusher on >secret ~* &* +@all",
    "user probe on nopass resetchannels -@all +ping",
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Server]]:
    """A stack with a few archived usages, and its server."""
    folder: Path = tmp_path_factory.mktemp("running")
    with (
        Server(folder / "redis", username="flusher", password="secret", acl=USERS) as server,
        Stack(folder / "stack", server) as stack,
    ):
        for _ in range(3):
            stored(send(stack.port, USAGE))
        stack.wait_until_archived()
        yield stack, server
