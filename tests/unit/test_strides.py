"""Strides: while the number of partitions changes, no id comes twice, and each id names its seq."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busyapi.ids import Seq
from busyapi.strides import Strides, begin_child, find_child, parent_of, stride_for

BOUND = 7


class Model:
    """Partitions that commit, widen, begin, and jump after a loss, in any order.

    Each flusher has a setting of its own, as in a rolling upgrade that never ends.
    """

    def __init__(self, base: int, draw: random.Random, *, wait_for_parent: bool = True) -> None:
        self.base, self.draw, self.wait_for_parent = base, draw, wait_for_parent
        self.strides = {p: Strides.fixed(base) for p in range(base)}
        self.seqs = dict.fromkeys(range(base), 0)
        self.issued: dict[int, tuple[int, int]] = {}

    def step(self, partition: int, partitions: int) -> None:
        if partition not in self.strides:
            self._begin(partition, partitions)
        elif self.draw.random() < 0.2:
            self._widen(partition, partitions)
        elif self.draw.random() < 0.1:
            self.seqs[partition] += BOUND + 1
            self._widen(partition, partitions)
        else:
            self._commit(partition, self.draw.randint(1, BOUND))

    def _begin(self, partition: int, partitions: int) -> None:
        parent = parent_of(partition, self.base)
        assert parent is not None
        if parent not in self.strides:
            return
        strides = begin_child(partition, partitions, self.strides[parent])
        if strides is None and not self.wait_for_parent:
            strides = Strides.begin(self.base, Seq(1), stride_for(partition + 1, self.base))
        if strides:
            self.strides[partition], self.seqs[partition] = strides, strides.start - 1

    def _widen(self, partition: int, partitions: int) -> None:
        strides, stride = self.strides[partition], stride_for(partitions, self.base)
        if stride > strides.stride:
            self.strides[partition] = strides.widen(Seq(self.seqs[partition] + 1), stride)

    def _commit(self, partition: int, count: int) -> None:
        for _ in range(count):
            self.seqs[partition] += 1
            seq = self.seqs[partition]
            usage_id = self.strides[partition].id_of(seq, partition)
            assert usage_id not in self.issued, (usage_id, partition, self.issued[usage_id])
            self.issued[usage_id] = partition, seq

    def locate(self, usage_id: int) -> tuple[int, int] | None:
        """Find an id as a lookup does."""
        partition: int | None = (usage_id - 1) % self.base
        while partition is not None and (strides := self.strides.get(partition)):
            if seq := strides.find_seq(usage_id, partition):
                return partition, seq
            partition = find_child(usage_id, partition, strides)
        return None


def run_model(seed: int, *, wait_for_parent: bool = True) -> Model:
    draw = random.Random(seed)
    model = Model(draw.randint(1, 5), draw, wait_for_parent=wait_for_parent)
    sizes = [draw.randint(model.base, model.base * 9) for _ in range(3)]
    for _ in range(600):
        partitions = draw.choice(sizes)  # of the flusher that acts
        model.step(draw.randrange(partitions), partitions)
    return model


@pytest.mark.parametrize("seed", range(150))
def test_no_id_comes_twice_and_each_is_found_while_partitions_change(seed: int) -> None:
    model = run_model(seed)
    assert len(model.issued) > 100
    for usage_id, place in model.issued.items():
        assert model.locate(usage_id) == place
    for partition, strides in model.strides.items():
        ids = [i for i, (number, _) in model.issued.items() if number == partition]
        assert ids == sorted(ids)
        assert Strides.parse(strides.encode()) == strides


def test_model_finds_ids_that_come_twice_if_a_partition_does_not_wait_for_its_parent() -> None:
    def run_all() -> None:
        for seed in range(150):
            run_model(seed, wait_for_parent=False)

    with pytest.raises(AssertionError):
        run_all()


@given(st.integers(1, 9), st.integers(0, 300))
def test_parent_has_a_smaller_number_and_the_same_residue(base: int, partition: int) -> None:
    parent = parent_of(partition, base)
    if parent is None:
        assert partition < base
    else:
        assert 0 <= parent < partition
        assert (partition - parent) % base == 0


def test_last_seq_up_to_an_id_is_the_highest_one_that_the_id_allows() -> None:
    strides = Strides.parse("4 3:4 10:8 20:16")
    for usage_id in range(1, 500):
        last = max(
            (seq for seq in range(3, 60) if strides.id_of(seq, 2) <= usage_id), default=Seq(2)
        )
        assert strides.last_seq_up_to(usage_id, 2) == last


@pytest.mark.parametrize(
    "text", ["", "4", "4 2:4 1:8", "4 5:8 2:16", "4 1:12", "4 1:8 9:4", "0 1:0", "4 0:4", "4 1:2"]
)
def test_impossible_strides_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"stride|must"):
        Strides.parse(text)
