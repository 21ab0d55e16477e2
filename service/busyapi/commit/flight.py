"""A flight: what one lane has sent in one go and must settle before it sends more.

    groups ──take──> one call for all that have no key, one for each that has ──> replies

A flight is repeated until it is answered or its requests' time is up. Repeats are safe: the
script knows the lane's batch number, and a keyed call's key. A call that may be stored is only ever
repeated as it was. One that was refused is sent without the requests whose time is up, under a
number of its own: they were answered "not stored".
"""

import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from busyapi.commit.batch import Group
from busyapi.errors import BufferFull, KeyReused, KeysFull, StoredUnknown
from busyapi.stream.entry import encode
from busyapi.stream.keys import Keys
from busyapi.stream.session import Call
from busyapi.stream.wire import ServerError

MOST_USAGES = 10_000
MOST_BYTES = 1 << 20
"""A flight stops growing here; one request may be larger and then travels alone."""
MOST_KEYED = 256


class Stored(NamedTuple):
    """A call that Redis has stored, and who is to be told so."""

    call: Call
    groups: list[Group]
    reply: int
    """The last seq, negative for a repeat."""


class Flight:
    """Calls with the groups that wait for them."""

    def __init__(self, calls: list[tuple[Call, list[Group]]]) -> None:
        self.calls = calls
        self.epoch = ""
        self.sending = False
        self.uncertain = False
        """A send went unanswered: each call may be stored already."""
        self.outdated = False
        """The calls must be made again before they are sent: they name what has left."""

    def groups(self) -> Iterator[Group]:
        """Go through every group that is not settled."""
        return (group for _, groups in self.calls for group in groups)

    @property
    def wanted(self) -> bool:
        """Whether any request still waits."""
        return any(group.wanted for group in self.groups())

    def expire(self, before: float) -> list[Group]:
        """Give up what was born before a moment; return the groups that are certainly not stored.

        These have left the flight: they will be answered "not stored", so they must not be in what
        is sent next. The others stay in it: a call that may be stored is repeated as it was.
        """
        gone = [group for group in self.groups() if group.born < before]
        if self.uncertain or self.sending:
            for group in gone:
                group.fail(StoredUnknown())
            return []
        if gone:
            left = (
                (call, [each for each in groups if each.born >= before])
                for call, groups in self.calls
            )
            self.calls = [(call, groups) for call, groups in left if groups]
            self.outdated = True
        return gone

    def renew(self, keys: Keys, producer: str, number: int) -> None:
        """Make the calls again, of the groups that are left, under another number."""
        self.calls = _calls(list(self.groups()), keys, producer, number)
        self.outdated = False


def take(pending: deque[Group], keys: Keys, producer: str, number: int) -> Flight:
    """Move the oldest groups, at least one, from `pending` into a flight."""
    groups: list[Group] = []
    count = size = keyed = 0
    while pending and (
        not count
        or (
            count + pending[0].count <= MOST_USAGES
            and size + pending[0].size <= MOST_BYTES
            and keyed < MOST_KEYED
        )
    ):
        group = pending.popleft()
        count += group.count
        size += group.size
        keyed += group.key is not None
        groups.append(group)
    return Flight(_calls(groups, keys, producer, number))


def _calls(
    groups: list[Group], keys: Keys, producer: str, number: int
) -> list[tuple[Call, list[Group]]]:
    keyed = [each for each in groups if each.key is not None]
    plain = [each for each in groups if each.key is None] if keyed else groups
    now = time.time_ns() // 1_000_000
    calls = [(_keyed_call(each, keys, now), [each]) for each in keyed]
    if plain:
        calls.append((_batch_call(plain, keys, now, producer, number), plain))
    return calls


def _batch_call(groups: list[Group], keys: Keys, now: int, producer: str, number: int) -> Call:
    lines = [line for group in groups for line in group.lines]
    return Call(
        value=encode(lines, now),
        usages=len(lines),
        guard=keys.lane(producer),
        mode="batch",
        token=str(number),
    )


def _keyed_call(group: Group, keys: Keys, now: int) -> Call:
    assert group.key is not None  # noqa: S101 - take() sorted them
    return Call(
        value=encode(list(group.lines), now),
        usages=group.count,
        guard=keys.idempotency(group.key.unscoped),
        mode="key",
        token=group.key.body,
        key=group.key.digest,
        sign=group.key.sign,
        received_ms=now,
    )


def answer(call: Call, groups: list[Group], reply: int) -> None:
    """Give each group of a stored call its last seq."""
    if call.mode == "key":
        # A keyed call stands alone; the sign tells the handler of a repeat.
        groups[0].answer(reply)
        return
    seq = abs(reply) - call.usages
    for group in groups:
        seq += group.count
        group.answer(seq)


class Outcome(NamedTuple):
    """What became of a flight's calls."""

    stored: list[Stored]
    refused: list[tuple[list[Group], Exception]]
    """For good: another try would fare no better."""
    trouble: ServerError | None
    """Why the calls that are left in the flight are to be repeated."""


def settle(flight: Flight, replies: list[object]) -> Outcome:
    """Sort the calls of a flight by their replies; those to be repeated stay in it."""
    found = Outcome([], [], None)
    left = []
    trouble = None
    for (call, groups), reply in zip(flight.calls, replies, strict=True):
        if isinstance(reply, int):
            found.stored.append(Stored(call, groups, reply))
        elif isinstance(reply, ServerError) and (error := final(reply, flight.uncertain)):
            found.refused.append((groups, error))
        else:
            left.append((call, groups))
            trouble = reply if isinstance(reply, ServerError) else trouble
    flight.calls = left
    return found._replace(trouble=trouble)


def final(reply: ServerError, uncertain: bool) -> Exception | None:  # noqa: FBT001
    """Tell what a refusal means for the requests; None when another try may go better.

    After an unanswered send nothing may be called "not stored": that send may still be on its
    way to the server.
    """
    match reply.code:
        case "KEYREUSED":
            return KeyReused()
        case "FULL" | "OOM" | "KEYS" | "KEYRIGHTS" if uncertain:
            return StoredUnknown()
        case "FULL":
            return BufferFull()
        case "OOM":
            return BufferFull("Redis's memory is full")
        case "KEYS":
            return KeysFull()
        case "KEYRIGHTS":
            return KeysFull("Redis's user may not keep Idempotency-Keys: grant it +hlen and +hset")
        case "STALE" | "KNOWN":
            return StoredUnknown()
        case "LANE" if uncertain:
            # What would have known it for a repeat is gone.
            return StoredUnknown()
    return None
