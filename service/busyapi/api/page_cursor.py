"""The order of a list of usages, and its cursor.

    22954.301.0      the last seq of each partition that the client has; 0 or nothing: none

Within a partition, seqs never change and none is used twice. So a cursor holds while usages arrive
and are archived, and when the number of partitions changes: a new partition begins after 0.

The usages of a page are in the order of their ids. Each partition was read up to a seq. If one of
them has more after it, no usage with a higher id is in the page: so the ids of later pages are
higher, except of usages that arrive later, because a partition with few posts issues low ids.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from busyapi.ids import MAX_ID, Seq, UsageId
from busyapi.strides import Strides

_CURSOR = re.compile(r"\d{1,16}(?:\.\d{1,16}){0,1023}", re.ASCII)


class Item(NamedTuple):
    """A usage that a client may read."""

    usage_id: UsageId
    seq: Seq
    usage: bytes
    """As a lookup renders it."""


class PartitionPage(NamedTuple):
    """The matching usages of a partition that follow a seq."""

    number: int
    strides: Strides
    items: Sequence[Item]
    """In the order of their seqs."""
    through: Seq
    """Up to this seq nothing is missing in `items`."""
    is_end: bool
    """Whether nothing follows yet."""

    @property
    def frontier(self) -> int:
        """The id up to which nothing is missing in `items`."""
        return MAX_ID if self.is_end else self.strides.id_of(self.through, self.number)


class Page(NamedTuple):
    """What a client gets."""

    usages: list[bytes]
    cursor: str
    has_more: bool
    """Whether to ask for the next page at once."""


def parse_cursor(text: str) -> tuple[Seq, ...] | None:
    """Return the seqs of a cursor, None if it is not one."""
    if not _CURSOR.fullmatch(text):
        return None
    return tuple(Seq(min(int(seq), MAX_ID)) for seq in text.split("."))


def position_of(after: Sequence[Seq], partition: int) -> Seq:
    """Return the last seq of a partition that the client has."""
    return after[partition] if partition < len(after) else Seq(0)


def merge_pages(
    pages: Sequence[PartitionPage], after: Sequence[Seq], limit: int, max_bytes: int
) -> Page:
    """Return the page that follows a cursor, from the pages of all partitions."""
    frontier = min((page.frontier for page in pages), default=MAX_ID)
    items = sorted(item for page in pages for item in page.items if item.usage_id <= frontier)
    count = _count_fitting(items, limit, max_bytes)
    end = items[count - 1].usage_id if count < len(items) else frontier
    has_more = not all(page.is_end for page in pages)
    cursor = list(after)
    for page in pages:
        cursor += [Seq(0)] * (page.number + 1 - len(cursor))
        dropped = next((item for item in page.items if item.usage_id > end), None)
        cursor[page.number] = Seq(dropped.seq - 1) if dropped else page.through
        has_more |= dropped is not None
    usages = [item.usage for item in items[:count]]
    return Page(usages, ".".join(map(str, cursor)), has_more)


def _count_fitting(items: Sequence[Item], limit: int, max_bytes: int) -> int:
    """Return how many items a page takes: one at least."""
    size = 0
    for count, item in enumerate(items[:limit]):
        size += len(item.usage)
        if count and size > max_bytes:
            return count
    return min(limit, len(items))
