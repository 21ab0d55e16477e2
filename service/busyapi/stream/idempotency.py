"""A partition's Idempotency-Keys as its flusher sees them.

An entry of the stream of new keys has one field, `k`, and the id of its usages' entry:

    1 <received at, ms since 1970> <digest of key and owner> <digest of the body>

The first word is the version. An entry without it has the same three words, from before entries
had a version. An entry of another version, or with another field, was written by another busyapi:
it is neither passed over nor trimmed, or its key would be lost.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from busyapi.errors import UnknownVersion
from busyapi.idempotency import IdempotencyRecord
from busyapi.ids import Seq
from busyapi.stream.connection import Command, make_evalsha
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.scripts import DELETE_KEYS, RESTORE_KEYS, ROTATE_KEYS

READ_COUNT = 2000
"""New keys of one reply: about 200 kB."""
VERSION = "1"
_FIELD = b"k"
# A time in ms has more digits since 1970 was twelve days old.
_ANY_VERSION = re.compile(r"[1-9][0-9]{0,5}")


class RotationState(NamedTuple):
    """Where the hashes are in their turn, as Redis has it."""

    generation: int
    """The one that new keys belong to, 0 when nothing is known of it."""
    age_ms: int
    restored_epoch: str
    """The epoch under which the server had all keys."""


class NewRecords(NamedTuple):
    """Some of the new keys."""

    records: list[IdempotencyRecord]
    last_seq: Seq
    """The seq of the last of them, 0 for none."""
    is_complete: bool
    """There were no more."""


class IdempotencyStore:
    """The hashes of known keys and the stream of new ones, on a flusher's connection.

    Every method raises as `Partition.renew_lease` does.
    """

    def __init__(
        self, keys: PartitionKeys, lease: str, run: Callable[[Command], Awaitable[Any]]
    ) -> None:
        self._keys = keys
        self._lease = lease
        self._run = run

    async def read_rotation(self) -> RotationState:
        """Read where the hashes are in their turn."""
        fields = ("keys", "keys_age", "keys_epoch")
        generation, age, given = await self._run(("HMGET", self._keys.state, *fields))
        return RotationState(int(generation or 0), int(age or 0), (given or b"").decode())

    async def read_new(self, after: Seq) -> NewRecords:
        """Read the next new keys behind a seq, up to ENTRIES of them.

        Raises:
            UnknownVersion: another version of busyapi made the first one. Those before such an
                entry are returned first.
        """
        start = f"{after}-18446744073709551615"
        reply = await self._run(
            ("XREAD", "COUNT", READ_COUNT, "STREAMS", self._keys.new_idempotency_keys, start)
        )
        entries = reply[0][1] if reply else []
        keys: list[IdempotencyRecord] = []
        last = Seq(0)
        for entry_id, fields in entries:
            try:
                key = _parse_record(entry_id, fields)
            except UnknownVersion:
                if not last:
                    raise
                return NewRecords(keys, last, is_complete=False)
            last = Seq(int(entry_id.partition(b"-")[0]))
            if key:
                keys.append(key)
        return NewRecords(keys, last, len(entries) < READ_COUNT)

    async def delete_all(self) -> None:
        """Delete every key: what a fresh install finds is of another one's usages."""
        names = [self._keys.lease, self._keys.new_idempotency_keys, *self._keys.idempotency_hashes]
        await self._run(make_evalsha(DELETE_KEYS, names, self._lease))

    async def rotate(self, generation: int, age_ms: int, max_keys: int, archived: Seq) -> int:
        """Say where the hashes are in their turn; give the number of known keys, -1 for unknown.

        `archived`: up to here the archive has all new keys.
        """
        keys = self._keys
        names = [keys.state, keys.lease, keys.new_idempotency_keys, *keys.idempotency_hashes]
        command = make_evalsha(
            ROTATE_KEYS, names, self._lease, generation, age_ms, max_keys, archived
        )
        known: int = await self._run(command)
        return known

    async def restore(self, generation: int, records: Sequence[IdempotencyRecord]) -> None:
        """Give keys back that the server may lack."""
        hashes = self._keys.idempotency_hashes
        pairs = [
            text
            for each in records
            for text in (each.key_digest, f"{each.body_digest} {each.last_seq} ")
        ]
        names = [self._keys.lease, hashes[generation % len(hashes)]]
        await self._run(make_evalsha(RESTORE_KEYS, names, self._lease, *pairs))


def _parse_record(entry_id: bytes, fields: list[bytes]) -> IdempotencyRecord | None:
    """Read an entry; None if it was made by hand: the usages behind it are to be archived.

    Raises:
        UnknownVersion: another version of busyapi made it.
    """
    last, count = map(int, entry_id.split(b"-"))
    if len(fields) != 2 or fields[0] != _FIELD:  # noqa: PLR2004 - a field and its value
        raise _unknown(last, "an unknown field")
    words = fields[1].decode(errors="replace").split(" ")
    if _ANY_VERSION.fullmatch(words[0]):
        if words[0] != VERSION:
            raise _unknown(last, f"version {words[0]}")
        del words[0]
    try:
        received, digest, body = words
        return IdempotencyRecord(Seq(last), count, int(received), digest, body)
    except ValueError:
        return None


def _unknown(last: int, what: str) -> UnknownVersion:
    return UnknownVersion(
        f"the entry of the Idempotency-Key of the usages up to seq {last} has {what}, and busyapi"
        f" {version('busyapi')} reads version {VERSION} only: start the busyapi that wrote it, or"
        " a later one. The entry stays in Redis until then"
    )
