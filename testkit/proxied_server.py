"""A server and a proxy between it and a committer, without a flusher."""

from pathlib import Path

import pytest

from busyapi.stream.connection import RedisConnection
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.entry import decode_entry, parse_entry
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.redis_url import parse_redis_url
from busyapi.stream.scripts import COMMIT, COMMIT_KEYED
from testkit.in_process import endpoint_of, seed_once
from testkit.proxy import Proxy
from testkit.servers import Server

KEYS = PartitionKeys(0)
COMMIT_DIGESTS = COMMIT.sha1.encode(), COMMIT_KEYED.sha1.encode()
"""A commit contains one of these, for usages without or with an Idempotency-Key. No other command
does."""
BOUND = 1000


class ProxiedServer:
    """A seeded server, and a proxy between it and a committer. No flusher runs."""

    def __init__(self, server: Server, proxy: Proxy, archive: Path) -> None:
        self.server = server
        self.proxy = proxy
        self.archive = archive
        self.endpoint: Endpoint = parse_redis_url(proxy.url)

    async def reseed(self, bound: int = BOUND) -> str:
        """Seed the server as a flusher does, and return the reason."""
        return await seed_once(endpoint_of(self.server), self.archive, bound=bound)

    def has_received(self, usage: bytes) -> bool:
        """Return whether the proxy has received a usage."""
        return any(usage in pair.asked for pair in list(self.proxy._pairs))

    def flush_sockets(self) -> None:
        """Return when the server has executed all commands sent before, on any connection.

        Each reply is from a later turn of its event loop, and each turn reads every readable
        socket: the first turn accepts connections, the second reads them.
        """
        for _ in range(3):
            self.server.command("PING")

    def read_entry_ids(self) -> list[str]:
        """Return the ids of all entries in the stream."""
        return [name for name, _ in self.server.command("XRANGE", KEYS.stream, "-", "+")]

    def read_usages(self) -> list[bytes]:
        """Return every usage in the stream."""
        entries = self.server.command("XRANGE", KEYS.stream, "-", "+")
        return [
            line
            for name, fields in entries
            for line in decode_entry(parse_entry(name.encode(), [b"u", fields["u"].encode()])).lines
        ]


def set_reply_timeout(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set how long a committer waits for a reply before it drops the connection."""
    for method in RedisConnection.pipeline, RedisConnection.wait_replies:
        assert method.__kwdefaults__
        monkeypatch.setitem(method.__kwdefaults__, "timeout_seconds", seconds)
