"""A used Idempotency-Key, as the stream and the archive store it."""

from typing import NamedTuple

from busyapi.ids import Seq


class IdempotencyRecord(NamedTuple):
    """A key and the usages stored with it: `usage_count` seqs that end at `last_seq`."""

    last_seq: Seq
    usage_count: int
    received_ms: int
    key_digest: str
    """Of the key and its owner."""
    body_digest: str
    """Of the usages."""
