"""What a flusher finds in Redis when it connects."""

from typing import NamedTuple

from busyapi.stream.durability import ServerInfo
from busyapi.stream.state import PartitionState


class PartitionSnapshot(NamedTuple):
    """What a flusher finds when it connects."""

    server: ServerInfo
    state: PartitionState
    is_empty: bool
    """Nothing of this partition is in Redis."""
