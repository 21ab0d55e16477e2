"""A partition's Idempotency-Keys as its flusher sees them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from busyapi.ids import Seq
from busyapi.known import KnownKey
from busyapi.stream.keys import Keys
from busyapi.stream.scripts import FORGETKEYS, GIVEKEYS, KEYS
from busyapi.stream.wire import Command, evalsha

ENTRIES = 2000
"""New keys of one reply: about 200 kB."""


class Turn(NamedTuple):
    """Where the hashes are in their turn, as Redis has it."""

    generation: int
    """The one that new keys belong to, 0 when nothing is known of it."""
    age_ms: int
    given: str
    """The epoch under which the server had all keys."""


class NewKeys(NamedTuple):
    """Some of the new keys."""

    keys: list[KnownKey]
    last: Seq
    """The seq of the last of them, 0 for none."""
    all: bool
    """There were no more."""


class KnownKeys:
    """The hashes of known keys and the stream of new ones, on a flusher's connection.

    Every method raises as `Partition.keep_lease` does.
    """

    def __init__(self, keys: Keys, lease: str, run: Callable[[Command], Awaitable[Any]]) -> None:
        self._keys = keys
        self._lease = lease
        self._run = run

    async def turn(self) -> Turn:
        """Read where the hashes are in their turn."""
        fields = ("keys", "keys_age", "keys_epoch")
        generation, age, given = await self._run(("HMGET", self._keys.state, *fields))
        return Turn(int(generation or 0), int(age or 0), (given or b"").decode())

    async def read(self, after: Seq) -> NewKeys:
        """Read the next new keys behind a seq, up to ENTRIES of them."""
        start = f"{after}-18446744073709551615"
        reply = await self._run(("XREAD", "COUNT", ENTRIES, "STREAMS", self._keys.keyed, start))
        entries = reply[0][1] if reply else []
        keys = [key for each in entries if (key := _parse(*each))]
        last = Seq(int(entries[-1][0].partition(b"-")[0])) if entries else Seq(0)
        return NewKeys(keys, last, len(entries) < ENTRIES)

    async def forget(self) -> None:
        """Delete every key: what a fresh install finds is of another one's usages."""
        names = [self._keys.lease, self._keys.keyed, *self._keys.hashes]
        await self._run(evalsha(FORGETKEYS, names, self._lease))

    async def keep(self, generation: int, age_ms: int, most: int, archived: Seq) -> int:
        """Say where the hashes are in their turn; give the number of known keys, -1 for unknown.

        `archived`: up to here the archive has all new keys.
        """
        keys = self._keys
        names = [keys.state, keys.lease, keys.keyed, *keys.hashes]
        command = evalsha(KEYS, names, self._lease, generation, age_ms, most, archived)
        known: int = await self._run(command)
        return known

    async def give(self, generation: int, known: Sequence[KnownKey]) -> None:
        """Give keys back that the server may lack."""
        hashes = self._keys.hashes
        pairs = [text for each in known for text in (each.digest, f"{each.body} {each.last} ")]
        names = [self._keys.lease, hashes[generation % len(hashes)]]
        await self._run(evalsha(GIVEKEYS, names, self._lease, *pairs))


def _parse(entry_id: bytes, fields: list[bytes]) -> KnownKey | None:
    """Read an entry; None if it was made by hand: the usages behind it are to be archived."""
    last, count = map(int, entry_id.split(b"-"))
    try:
        received, digest, body = fields[1].decode().split(" ")
        return KnownKey(Seq(last), count, int(received), digest, body)
    except ValueError:
        return None
