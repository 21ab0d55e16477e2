"""A partition as a flusher reads it after it has connected."""

from typing import NamedTuple

from busyapi.stream.durability import ServerInfo
from busyapi.stream.state import PartitionState


class PartitionSnapshot(NamedTuple):
    """The server and the partition's record."""

    server: ServerInfo
    state: PartitionState
    is_empty: bool
    """Redis has no key of this partition."""
