"""A partition's Idempotency-Keys, from its flusher's side.

An entry in the stream of new keys has one field, `k`, and the same id as the entry of its usages:

    1 <received at, ms since 1970> <digest of key and owner> <digest of the body>

The first word is the version. An entry from before versions existed has only the other three words.
Another busyapi wrote an entry with another version or another field: it is neither skipped nor
trimmed, or its key would be lost.
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
"""New keys per reply: about 200 kB."""
VERSION = "1"
_FIELD = b"k"
# A time in ms has had more digits than a version since January 1970.
_ANY_VERSION = re.compile(r"[1-9][0-9]{0,5}")


class RotationState(NamedTuple):
    """The state of the rotation of the hashes, as Redis has it."""

    generation: int
    """The generation of new keys, 0 if Redis has none."""
    age_ms: int
    restored_epoch: str
    """The last epoch for which all keys were restored to the server."""


class NewRecords(NamedTuple):
    """A chunk of the new keys."""

    records: list[IdempotencyRecord]
    last_seq: Seq
    """The seq of the last entry that was read, 0 if there was no entry."""
    is_complete: bool
    """The stream has no further keys."""


class IdempotencyStore:
    """The hashes of known keys and the stream of new keys, on a flusher's connection.

    Every method raises as `OwnedPartition.renew_lease` does.
    """

    def __init__(
        self, key_names: PartitionKeys, lease: str, run: Callable[[Command], Awaitable[Any]]
    ) -> None:
        self._key_names = key_names
        self._lease = lease
        self._run = run

    async def read_rotation(self) -> RotationState:
        """Return the state of the rotation."""
        fields = ("keys_generation", "keys_age", "keys_epoch")
        generation, age, epoch = await self._run(("HMGET", self._key_names.state, *fields))
        return RotationState(int(generation or 0), int(age or 0), (epoch or b"").decode())

    async def read_new(self, after: Seq) -> NewRecords:
        """Return the next new keys after a seq, up to READ_COUNT of them.

        Raises:
            UnknownVersion: another version of busyapi wrote the first entry. If entries precede
                it, they are returned first.
        """
        start = f"{after}-18446744073709551615"
        reply = await self._run(
            ("XREAD", "COUNT", READ_COUNT, "STREAMS", self._key_names.new_idempotency_keys, start)
        )
        entries = reply[0][1] if reply else []
        records: list[IdempotencyRecord] = []
        last_seq = Seq(0)
        for entry_id, fields in entries:
            try:
                record = _parse_record(entry_id, fields)
            except UnknownVersion:
                if not last_seq:
                    raise
                return NewRecords(records, last_seq, is_complete=False)
            last_seq = Seq(int(entry_id.partition(b"-")[0]))
            if record:
                records.append(record)
        return NewRecords(records, last_seq, len(entries) < READ_COUNT)

    async def delete_all(self) -> None:
        """Delete every key: on a fresh install, any key belongs to another install's usages."""
        names = [
            self._key_names.lease,
            self._key_names.new_idempotency_keys,
            *self._key_names.idempotency_hashes,
        ]
        await self._run(make_evalsha(DELETE_KEYS, names, self._lease))

    async def rotate(self, generation: int, age_ms: int, max_keys: int, archived: Seq) -> int:
        """Publish the state of the rotation; return the number of known keys, -1 if unknown.

        `archived` is the seq up to which the archive has all new keys.
        """
        key_names = self._key_names
        names = [
            key_names.state,
            key_names.lease,
            key_names.new_idempotency_keys,
            *key_names.idempotency_hashes,
        ]
        command = make_evalsha(
            ROTATE_KEYS, names, self._lease, generation, age_ms, max_keys, archived
        )
        count: int = await self._run(command)
        return count

    async def restore(self, generation: int, records: Sequence[IdempotencyRecord]) -> None:
        """Restore keys that the server may lack."""
        hashes = self._key_names.idempotency_hashes
        pairs = [
            text
            for record in records
            for text in (record.key_digest, f"{record.body_digest} {record.last_seq} ")
        ]
        names = [self._key_names.lease, hashes[generation % len(hashes)]]
        await self._run(make_evalsha(RESTORE_KEYS, names, self._lease, *pairs))


def _parse_record(entry_id: bytes, fields: list[bytes]) -> IdempotencyRecord | None:
    """Parse an entry; return None if it was written by hand, so that it blocks no usages.

    Raises:
        UnknownVersion: another version of busyapi wrote it.
    """
    last, count = map(int, entry_id.split(b"-"))
    if len(fields) != 2 or fields[0] != _FIELD:  # noqa: PLR2004 - a field and its value
        raise _unknown_version(last, "an unknown field")
    words = fields[1].decode(errors="replace").split(" ")
    if _ANY_VERSION.fullmatch(words[0]):
        if words[0] != VERSION:
            raise _unknown_version(last, f"version {words[0]}")
        del words[0]
    try:
        received, digest, body = words
        return IdempotencyRecord(Seq(last), count, int(received), digest, body)
    except ValueError:
        return None


def _unknown_version(last: int, what: str) -> UnknownVersion:
    return UnknownVersion(
        f"the entry of the Idempotency-Key of the usages up to seq {last} has {what}, and busyapi"
        f" {version('busyapi')} reads version {VERSION} only: start the busyapi that wrote it, or"
        " a later one. The entry stays in Redis until then"
    )
