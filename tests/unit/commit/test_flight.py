"""What one flight takes along, and what it leaves for the next."""

from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busyapi.commit.batch import Admission, Awaited, Group, Key
from busyapi.commit.flight import MOST_BYTES, MOST_KEYED, MOST_USAGES, Flight, take
from busyapi.errors import Overloaded, StoredUnknown
from busyapi.stream.entry import decode, entry
from busyapi.stream.keys import Keys

KEYS = Keys(0)


class Silent(Group):
    """A group that nobody waits for."""

    wanted = False

    def answer(self, last: int) -> None:
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        raise NotImplementedError


def group(lines: Sequence[bytes], key: Key | None = None, size: int | None = None) -> Group:
    made = Silent(lines, key)
    made.size = made.size if size is None else size
    return made


def plain(count: int = 1, size: int | None = None) -> Group:
    return group([b"{}"] * count, size=size)


def keyed(name: str) -> Group:
    return group([b"{}"], Key(name, "body", f"old-{name}"))


def test_waiting_groups_become_one_call_in_their_order() -> None:
    pending = deque([group([b"a"]), group([b"b", b"c"]), group([b"d"])])
    flight = take(pending, KEYS, "me", 7)
    ((call, groups),) = flight.calls
    assert (call.usages, call.token, call.mode, call.guard) == (4, "7", "batch", KEYS.lane("me"))
    assert decode(entry(b"4-4", [b"u", call.value])).lines == [b"a", b"b", b"c", b"d"]
    assert [each.count for each in groups] == [1, 2, 1]
    assert not pending


def test_each_key_is_a_call_of_its_own() -> None:
    pending = deque([plain(), keyed("k1"), plain(2), keyed("k2")])
    calls = [call for call, _ in take(pending, KEYS, "me", 1).calls]
    assert sorted((call.mode, call.usages, call.guard) for call in calls) == [
        ("batch", 3, KEYS.lane("me")),
        ("key", 1, KEYS.idempotency("old-k1")),
        ("key", 1, KEYS.idempotency("old-k2")),
    ]


def test_flight_ends_at_the_most_usages() -> None:
    pending = deque([plain(MOST_USAGES - 1), plain(), plain()])
    assert take(pending, KEYS, "me", 1).calls[0][0].usages == MOST_USAGES
    assert len(pending) == 1


def test_flight_ends_at_the_most_bytes() -> None:
    pending = deque([plain(size=MOST_BYTES - 1), plain(size=1), plain(size=1)])
    assert take(pending, KEYS, "me", 1).calls[0][0].usages == 2
    assert len(pending) == 1


def test_flight_ends_at_the_most_keys() -> None:
    pending = deque([keyed(str(n)) for n in range(MOST_KEYED + 1)])
    assert len(take(pending, KEYS, "me", 1).calls) == MOST_KEYED
    assert len(pending) == 1


def test_larger_request_than_a_flight_travels_alone() -> None:
    pending = deque([plain(size=5 * MOST_BYTES), plain()])
    assert take(pending, KEYS, "me", 1).calls[0][0].usages == 1
    assert len(pending) == 1


@given(
    st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 1 << 19), st.booleans()), max_size=30)
)
def test_every_group_flies_once_and_within_the_limits(said: list[tuple[int, int, bool]]) -> None:
    groups = [
        group([b"{}"] * count, Key(str(n), "body") if has_key else None, size)
        for n, (count, size, has_key) in enumerate(said)
    ]
    pending = deque(groups)
    flown: list[Group] = []
    while pending:
        flight = take(pending, KEYS, "me", 1)
        aboard = list(flight.groups())
        assert aboard
        assert len(aboard) == 1 or (
            sum(each.count for each in aboard) <= MOST_USAGES
            and sum(each.size for each in aboard) <= MOST_BYTES
        )
        for call, those in flight.calls:
            assert call.usages == sum(each.count for each in those)
            assert (call.mode == "key") == (those[0].key is not None)
        flown += aboard
    assert sorted(map(id, flown)) == sorted(map(id, groups))


def lines_of(flight: Flight) -> list[bytes]:
    """Return what a flight would send, in order."""
    return [
        line
        for call, _ in flight.calls
        for line in decode(entry(b"%d-%d" % (call.usages, call.usages), [b"u", call.value])).lines
    ]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.booleans()), min_size=1, max_size=9)
)
def test_what_has_expired_is_not_in_the_calls_that_are_sent_next(
    said: list[tuple[int, int, bool]],
) -> None:
    groups = [
        group([b'"%d"' % n] * count, Key(str(n), "body") if has_key else None)
        for n, (_, count, has_key) in enumerate(said)
    ]
    for each, (born, _, _) in zip(groups, said, strict=True):
        each.born = born
    flight = take(deque(groups), KEYS, "me", 7)
    gone = flight.expire(2)
    assert sorted(map(id, gone)) == sorted(id(each) for each in groups if each.born < 2)
    assert flight.outdated == bool(gone)
    flight.renew(KEYS, "me", 8)
    left = [each for each in groups if each.born >= 2]
    keyed_first = sorted(left, key=lambda each: each.key is None)
    assert lines_of(flight) == [line for each in keyed_first for line in each.lines]
    assert all(call.token == "8" for call, _ in flight.calls if call.mode == "batch")


@pytest.mark.parametrize("state", ["uncertain", "sending"])
def test_what_may_be_stored_stays_as_it_was_sent(state: str) -> None:
    told: list[Exception] = []

    class Waiting(Silent):
        def fail(self, error: Exception) -> None:
            told.append(error)

    groups = [Waiting([b"a"]), Waiting([b"b"])]
    groups[0].born = 0
    flight = take(deque(groups), KEYS, "me", 7)
    setattr(flight, state, True)
    calls = list(flight.calls)
    assert flight.expire(1) == []
    assert flight.calls == calls
    assert not flight.outdated
    assert [type(each) for each in told] == [StoredUnknown]


def test_admission_refuses_what_is_too_much_and_takes_nothing_of_it() -> None:
    admission = Admission(most=3, most_bytes=100)
    admission.enter(2, 50)
    for count, size in ((2, 1), (1, 51)):
        with pytest.raises(Overloaded):
            admission.enter(count, size)
    assert (admission.count, admission.bytes) == (2, 50)
    admission.enter(1, 50)
    admission.leave([plain(1, size=50)])
    assert (admission.count, admission.bytes) == (2, 50)


async def test_answer_to_a_request_that_went_away_is_dropped() -> None:
    waiting = Awaited([b"{}"])
    waiting.future.cancel()
    waiting.answer(1)
    waiting.fail(Overloaded())
    assert waiting.future.cancelled()
