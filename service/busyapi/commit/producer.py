"""Who a committer is to the server: a name, and the number of its last batch."""

from collections import deque
from secrets import token_hex

from busyapi.commit.in_flight import InFlightBatch, form_batch
from busyapi.commit.pending import PendingWrite
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.session import Session


class Producer:
    """Numbers a committer's batches, so that the server can tell a repeat.

    The server remembers the last number under a key that expires, which only cleans up behind
    committers that ended: it refuses a batch of a name that it does not remember. So a clock that
    steps costs a repeat its answer, and never stores it twice.
    """

    def __init__(self, keys: PartitionKeys) -> None:
        self._keys = keys
        self._producer_id = ""
        self._number = 0

    async def register(self, session: Session) -> bool:
        """Make sure that the server remembers this producer; return whether it did not.

        Then it has a name that no call ever had: a call of the old one that is still on its way
        is refused, while under the same name it could be stored a second time.

        Raises:
            RedisUnavailable: the connection failed, or the server cannot write.
        """
        if self._producer_id and await session.is_registered(
            self._keys.committer(self._producer_id)
        ):
            return False
        name = token_hex(8)
        await session.register(self._keys.committer(name))
        # Not before: after a lost answer the next call must still say that the old name is gone.
        self._producer_id = name
        return True

    def form_batch(self, pending: deque[PendingWrite]) -> InFlightBatch:
        """Move the oldest groups into a batch with the next number."""
        self._number += 1
        return form_batch(pending, self._keys, self._producer_id, self._number)

    def rebuild_batch(self, batch: InFlightBatch) -> None:
        """Make a batch's calls again, of what is left in it, with the next number."""
        self._number += 1
        batch.rebuild(self._keys, self._producer_id, self._number)
