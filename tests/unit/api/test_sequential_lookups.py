"""Which lookups are sequential, and the bound on what is remembered."""

import random

import pytest

from busyapi.api import sequential_lookups as module
from busyapi.api.sequential_lookups import BLOCK_IDS, FREE_IDS, MAX_BLOCKS, SequentialLookups


def count(lookups: SequentialLookups, ids: list[int], client: str = "a") -> int:
    return sum(lookups.add(client, usage) for usage in ids)


def shuffle(ids: list[int]) -> list[int]:
    return random.Random(7).sample(ids, len(ids))


@pytest.mark.parametrize("start", [1, BLOCK_IDS * 10**9])
def test_order_and_step_of_a_client_do_not_matter(start: int) -> None:
    whole = list(range(start, start + BLOCK_IDS))
    blocks = len({usage // BLOCK_IDS for usage in whole})
    for ids in (whole, whole[::-1], whole[::2] + whole[1::2], shuffle(whole)):
        assert count(SequentialLookups(), ids) >= BLOCK_IDS - blocks * FREE_IDS - 1
    assert count(SequentialLookups(), whole[::20]) > 0


def test_client_is_counted_by_each_of_many_processes() -> None:
    processes, ids = 20, shuffle(list(range(10 * BLOCK_IDS)))
    total = sum(count(SequentialLookups(), ids[at::processes]) for at in range(processes))
    assert total > len(ids) / 2


def test_same_ids_again_and_ids_far_apart_are_not_sequential() -> None:
    lookups = SequentialLookups()
    assert count(lookups, list(range(FREE_IDS)) * 10) == 0
    assert count(lookups, [FREE_IDS]) == 1
    assert count(lookups, list(range(FREE_IDS + 1)) * 10) == 0
    assert count(SequentialLookups(), list(range(0, 1000 * BLOCK_IDS, BLOCK_IDS // 8))) == 0


def test_clients_do_not_count_for_each_other() -> None:
    lookups = SequentialLookups()
    assert all(count(lookups, list(range(FREE_IDS)), f"client-{n}") == 0 for n in range(100))


def test_memory_is_bounded_and_drops_the_block_that_was_unused_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_BLOCKS", 3)
    lookups = SequentialLookups()
    for block in (0, 1, 2, 0, 3):
        lookups.add("a", block * BLOCK_IDS)
    assert [block for _, block in lookups._blocks] == [2, 0, 3]
    assert MAX_BLOCKS * BLOCK_IDS >= 10**7
