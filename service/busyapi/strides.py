"""The strides of a partition: the step between the ids of consecutive seqs, and since when.

The number of partitions of an installation may change. Its base, the number at install, does not.
A stride is base, 2 * base, 4 * base, …; a partition's stride only grows, and only its own flusher
widens it. docs/explanation/partitions.md proves that no id comes twice.
"""

import re
from itertools import pairwise
from typing import NamedTuple, Self

from busyapi.ids import MAX_ID, Seq, UsageId, make_usage_id

_TEXT = re.compile(r"(\d+)((?: \d+:\d+)+)")


class Step(NamedTuple):
    """A stride and the first seq that has it."""

    first: Seq
    stride: int


class Strides(NamedTuple):
    """All strides that a partition has had, in order."""

    base: int
    """The number of partitions at install."""
    steps: tuple[Step, ...]

    @classmethod
    def fixed(cls, partitions: int) -> Self:
        """Return the strides of a partition of an installation that never changed."""
        return cls(partitions, (Step(Seq(1), partitions),))

    @classmethod
    def begin(cls, base: int, first: Seq, stride: int) -> Self:
        """Return the strides of a partition that begins at a seq."""
        return cls(base, (Step(first, stride),))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse what `encode` returns.

        Raises:
            ValueError: the text has another form, or a base that its strides cannot have.
        """
        if not (match := _TEXT.fullmatch(text)):
            raise ValueError(f"not strides: {text!r}")
        pairs = (pair.split(":") for pair in match[2].split())
        strides = cls(int(match[1]), tuple(Step(Seq(int(a)), int(b)) for a, b in pairs))
        strides.check()
        return strides

    def check(self) -> None:
        """Check that the strides are possible.

        Raises:
            ValueError: they are not.
        """
        if self.base < 1 or self.steps[0].first < 1:
            raise ValueError("base and seqs must be at least 1")
        for _, stride in self.steps:
            factor, rest = divmod(stride, self.base)
            if rest or factor < 1 or factor & (factor - 1):
                raise ValueError(f"stride {stride} is not a doubled {self.base}")
        for one, other in pairwise(self.steps):
            # Two steps at one seq: the partition issued nothing between them.
            if other.first < one.first or other.stride <= one.stride:
                raise ValueError("strides must grow, and seqs must not go back")

    def encode(self) -> str:
        """Return the strides as text, such as `4 1:4 5001:8`."""
        return " ".join([str(self.base), *(f"{first}:{stride}" for first, stride in self.steps)])

    @property
    def is_fixed(self) -> bool:
        """Return whether this is what `fixed` returns."""
        return self.steps == ((1, self.base),)

    @property
    def stride(self) -> int:
        """The stride of new seqs."""
        return self.steps[-1].stride

    @property
    def start(self) -> Seq:
        """The first seq that the partition may have issued."""
        return self.steps[0].first

    def at(self, seq: int) -> int:
        """Return the stride of a seq. Seqs before the start, which have no ids, have the first."""
        for first, stride in reversed(self.steps):
            if seq >= first:
                return stride
        return self.steps[0].stride

    def id_of(self, seq: int, partition: int) -> UsageId:
        """Return the id of a seq."""
        first, stride = self.steps[-1]
        return make_usage_id(seq, partition, stride if seq >= first else self.at(seq))

    def find_seq(self, usage_id: int, partition: int) -> Seq | None:
        """Return the seq of an id, None if the id cannot be of this partition."""
        end = MAX_ID
        for first, stride in reversed(self.steps):
            seq, residue = divmod(usage_id - 1, stride)
            if residue == partition and first <= seq + 1 < end:
                return Seq(seq + 1)
            end = first
        return None

    def last_seq_up_to(self, usage_id: int, partition: int) -> Seq:
        """Return the last seq whose id is not above an id."""
        end = MAX_ID
        for first, stride in reversed(self.steps):
            seq = (usage_id - 1 - partition) // stride + 1
            if seq >= first:
                return Seq(min(seq, end - 1))
            end = first
        return Seq(self.start - 1)

    def widen(self, first: Seq, stride: int) -> Self:
        """Return strides with one more step.

        Raises:
            ValueError: the step does not follow the others.
        """
        widened = self._replace(steps=(*self.steps, Step(first, stride)))
        widened.check()
        return widened

    def extends(self, other: "Strides") -> bool:
        """Return whether these strides begin with all steps of others."""
        return self.base == other.base and self.steps[: len(other.steps)] == other.steps


class IdScheme(NamedTuple):
    """How the seqs of a partition become ids, and back."""

    partition: int
    strides: Strides

    @classmethod
    def fixed(cls, partition: int, stride: int) -> Self:
        """Return the scheme of a partition, or of a segment, with one stride."""
        return cls(partition, Strides.fixed(stride))

    def id_of(self, seq: int) -> UsageId:
        """Return the id of a seq."""
        return self.strides.id_of(seq, self.partition)

    def find_seq(self, usage_id: int) -> Seq | None:
        """Return the seq of an id, None if the id is not of this partition."""
        return self.strides.find_seq(usage_id, self.partition)

    def owner_at(self, seq: int) -> tuple[int, int]:
        """Return what segments say of their owner: the partition, and the stride of a seq."""
        return self.partition, self.strides.at(seq)


def stride_for(partitions: int, base: int) -> int:
    """Return the smallest stride for a number of partitions."""
    stride = base
    while stride < partitions:
        stride *= 2
    return stride


def parent_of(partition: int, base: int) -> int | None:
    """Return the partition out of whose ids a partition takes its own, None for one of the base."""
    return None if partition < base else partition - stride_for(partition + 1, base) // 2


def begin_child(partition: int, partitions: int, parent: Strides) -> Strides | None:
    """Return the strides with which a partition begins, None while its parent may use its ids."""
    own = stride_for(partition + 1, parent.base)
    for first, stride in parent.steps:
        if stride >= own:
            return Strides.begin(parent.base, first, max(own, stride_for(partitions, parent.base)))
    return None


def find_child(usage_id: int, partition: int, strides: Strides) -> int | None:
    """Return the child of a partition that leads to an id; None if no child has it."""
    stride = strides.base
    while stride <= strides.stride:
        number = (usage_id - 1) % stride
        if number > partition:
            return number
        stride *= 2
    return None
