"""Who a lane is to the server: a name, and the number of its last batch."""

from collections import deque
from secrets import token_hex

from busyapi.commit.batch import Group
from busyapi.commit.flight import Flight, take
from busyapi.stream.keys import Keys
from busyapi.stream.session import Session


class Producer:
    """Numbers a lane's batches, so that the server can tell a repeat.

    The server remembers the last number under a key that expires, which only cleans up behind
    lanes that ended: it refuses a batch of a name that it does not remember. So a clock that steps
    costs a repeat its answer, and never stores it twice.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._name = ""
        self._number = 0

    async def introduce(self, session: Session) -> bool:
        """Make sure that the server remembers this producer; return whether it did not.

        Then it has a name that no call ever had: a call of the old one that is still on its way
        is refused, while under the same name it could be stored a second time.

        Raises:
            RedisAway: the connection failed, or the server cannot write.
        """
        if self._name and await session.remembers(self._keys.lane(self._name)):
            return False
        name = token_hex(8)
        await session.enroll(self._keys.lane(name))
        # Not before: after a lost answer the next call must still say that the old name is gone.
        self._name = name
        return True

    def take(self, pending: deque[Group]) -> Flight:
        """Move the oldest groups into a flight with the next number."""
        self._number += 1
        return take(pending, self._keys, self._name, self._number)

    def renew(self, flight: Flight) -> None:
        """Make a flight's calls again, of what is left in it, with the next number."""
        self._number += 1
        flight.renew(self._keys, self._name, self._number)
