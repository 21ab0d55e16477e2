"""A server, and a proxy that a committer goes through; nobody archives."""

from pathlib import Path

import pytest

from busyapi.stream.connection import RedisConnection
from busyapi.stream.endpoint import Endpoint, parse_redis_url
from busyapi.stream.entry import decode_entry, parse_entry
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.scripts import COMMIT, COMMIT_KEYED
from testkit.in_process import endpoint_of, seed_once
from testkit.proxy import Proxy
from testkit.servers import Server

KEYS = PartitionKeys(0)
COMMIT_DIGESTS = COMMIT.sha1.encode(), COMMIT_KEYED.sha1.encode()
"""In a commit, without an Idempotency-Key or with one, and in no other command."""
BOUND = 1000


class ProxiedServer:
    """A seeded server, and a proxy that a committer goes through. Nobody archives."""

    def __init__(self, server: Server, proxy: Proxy, archive: Path) -> None:
        self.server = server
        self.proxy = proxy
        self.archive = archive
        self.endpoint: Endpoint = parse_redis_url(proxy.url)

    async def reseed(self, bound: int = BOUND) -> str:
        """Seed the server as a flusher does; return the reason."""
        return await seed_once(endpoint_of(self.server), self.archive, bound=bound)

    def has_received(self, usage: bytes) -> bool:
        """Tell whether the proxy has a usage."""
        return any(usage in each.asked for each in list(self.proxy._pairs))

    def flush_sockets(self) -> None:
        """Return when the server has done what was sent to it before, on any connection.

        Each answer is of a later turn of its loop, and each turn reads every socket that has
        something: the first accepts connections, the second reads them.
        """
        for _ in range(3):
            self.server.command("PING")

    def read_entry_ids(self) -> list[str]:
        """Return the ids of all entries."""
        return [each for each, _ in self.server.command("XRANGE", KEYS.stream, "-", "+")]

    def read_usages(self) -> list[bytes]:
        """Return every usage in the stream."""
        found = self.server.command("XRANGE", KEYS.stream, "-", "+")
        return [
            line
            for name, fields in found
            for line in decode_entry(parse_entry(name.encode(), [b"u", fields["u"].encode()])).lines
        ]


def set_reply_timeout(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Take a server that is silent for so long for gone."""
    for each in RedisConnection.pipeline, RedisConnection.wait_replies:
        assert each.__kwdefaults__
        monkeypatch.setitem(each.__kwdefaults__, "timeout_seconds", seconds)
