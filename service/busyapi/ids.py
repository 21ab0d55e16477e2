"""Sequence numbers and ids: two kinds of integers with a type each."""

from typing import NewType

Seq = NewType("Seq", int)
"""A usage's number within its partition, from 1. Seq 0 means none yet."""

UsageId = NewType("UsageId", int)
"""The id in a response: unique over all partitions, at most MAX_ID."""

MAX_ID = 2**53
"""The largest integer that every JSON reader keeps exact (RFC 8259, section 6)."""


def make_usage_id(seq: int, partition: int, partitions: int) -> UsageId:
    """Return the id of a seq. With one partition it equals the seq."""
    # Without the call of UsageId, which every post would pay.
    return (seq - 1) * partitions + partition + 1  # type: ignore[return-value]
