"""A primary with two replicas and no Sentinels, and the folder of an archive."""

from pathlib import Path

from busyapi.archive.holders import read_holders
from testkit.in_process import endpoint_of
from testkit.servers import Flavour, Server

CONFIG = ["replica-priority 0", "repl-ping-replica-period 1", "repl-timeout 2"]
"""`repl-timeout` is how long a silent replica delays commits."""


class Trio:
    """A primary, two replicas, and the folder of an archive."""

    def __init__(self, folder: Path, flavour: Flavour) -> None:
        self.primary = Server(folder / "primary", flavour, config=CONFIG)
        self.replicas = [
            Server(folder / name, flavour, config=CONFIG, replica_of=self.primary)
            for name in ("one", "two")
        ]
        self.archive = folder / "archive"
        self.where = endpoint_of(self.primary)

    @property
    def holders(self) -> set[Server]:
        """The servers that the archive names."""
        named = read_holders(self.archive / "p00").processes
        return {
            server
            for server in (self.primary, *self.replicas)
            if f"127.0.0.1:{server.port}" in named
        }


def count_online(primary: Server) -> int:
    """Return how many replicas a primary lists as online."""
    values = primary.replication().values()
    return sum(isinstance(value, dict) and value["state"] == "online" for value in values)
