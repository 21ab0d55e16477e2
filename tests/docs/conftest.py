"""A running stack for the commands of the documents, with the Redis users of the chart."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.api_client import USAGE, check_stored, send
from testkit.processes import Stack
from testkit.servers import Server

# As on a cluster: `default` is off, the flusher's user reads, the probe's user may only PING.
USERS = (
    "user default off ~* &* +@all",
    "user flusher on >secret ~* &* +@all",
    "user probe on nopass resetchannels -@all +ping",
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Server]]:
    """Start a stack with some archived usages, and its server."""
    folder: Path = tmp_path_factory.mktemp("running")
    with (
        Server(folder / "redis", username="flusher", password="secret", acl=USERS) as server,
        Stack(folder / "stack", server) as stack,
    ):
        for _ in range(3):
            check_stored(send(stack.port, USAGE))
        stack.wait_until_archived()
        yield stack, server
