"""The id of a committer on the server, and the number of its last batch."""

from collections import deque
from secrets import token_hex

from busyapi.commit.in_flight import BatchIdentity, InFlightBatch, form_batch
from busyapi.commit.pending import PendingWrite
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.session import Session


class CommitterId:
    """Numbers a committer's batches, so that the server can detect a retry.

    The server stores the last number under a key that expires. The expiry only cleans up after
    committers that have ended, because the server refuses a batch with an id that it does not know.
    So if the clock steps, a retry may get no result, but it is never stored twice.
    """

    def __init__(self, key_names: PartitionKeys, entry_version: int) -> None:
        self._key_names = key_names
        self._entry_version = entry_version
        self._id = ""
        self._number = 0

    async def register(self, session: Session) -> bool:
        """Register the committer if the server does not know it; return whether it did so.

        It then has a new id that no command ever had. The server refuses a command with the old id
        that arrives later; with the same id it could store it a second time.

        Raises:
            RedisUnavailable: the connection failed, or the server cannot write.
        """
        if self._id and await session.is_registered(self._key_names.committer(self._id)):
            return False
        new_id = token_hex(8)
        await session.register(self._key_names.committer(new_id))
        # Not earlier: if the reply is lost, the next call must still find the old id unknown.
        self._id = new_id
        return True

    def form_batch(self, queued: deque[PendingWrite]) -> InFlightBatch:
        """Move the oldest writes into a batch with the next number."""
        return form_batch(queued, self._next_identity())

    def rebuild_batch(self, batch: InFlightBatch) -> None:
        """Make a batch's commands again, for its remaining writes and with the next number."""
        batch.rebuild(self._next_identity())

    def _next_identity(self) -> BatchIdentity:
        self._number += 1
        return BatchIdentity(self._key_names, self._id, self._number, self._entry_version)
