"""An Idempotency-Key that was used, as stream and archive carry it."""

from typing import NamedTuple

from busyapi.ids import Seq


class KnownKey(NamedTuple):
    """A key and the usages that it stored: the seqs, as many as `usages`, that end at `last`."""

    last: Seq
    usages: int
    received_ms: int
    digest: str
    """Of the key and its owner."""
    body: str
    """Of the usages."""
