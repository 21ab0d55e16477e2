"""Pages that are merged from the pages of partitions are the whole list, each usage once."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from busyapi.api.page_cursor import (
    Item,
    PartitionPage,
    merge_pages,
    parse_cursor,
    position_of,
)
from busyapi.ids import Seq
from busyapi.strides import Strides

SIZE = 10
"""Bytes of a usage."""


def scan(
    matches: list[bool], number: int, strides: Strides, after: int, rng: random.Random
) -> PartitionPage:
    """Return a page of a partition that ends after a random seq, but makes progress."""
    issued = len(matches)
    seqs = [seq for seq, match in enumerate(matches, 1) if match]
    end = rng.choice([issued, rng.randint(min(after + 1, issued), issued)])
    items = [
        Item(strides.id_of(seq, number), Seq(seq), b"%010d" % strides.id_of(seq, number))
        for seq in seqs
        if after < seq <= end
    ]
    return PartitionPage(number, strides, items, Seq(max(after, end)), end == issued)


@settings(max_examples=200)
@given(
    st.lists(st.lists(st.booleans(), max_size=40), min_size=1, max_size=4),
    st.integers(0, 1 << 30),
    st.integers(1, 6),
    st.sampled_from([1, 25, 1000]),
)
def test_pages_are_in_order_and_have_each_usage_once(
    matches: list[list[bool]], seed: int, limit: int, max_bytes: int
) -> None:
    rng = random.Random(seed)
    strides = Strides.fixed(len(matches))
    expected = sorted(
        strides.id_of(seq, number)
        for number, row in enumerate(matches)
        for seq, match in enumerate(row, 1)
        if match
    )
    ids: list[int] = []
    after: tuple[Seq, ...] = ()
    for _ in range(1000):
        pages = [
            scan(row, number, strides, position_of(after, number), rng)
            for number, row in enumerate(matches)
        ]
        page = merge_pages(pages, after, limit, max_bytes)
        assert len(page.usages) <= limit
        assert sum(map(len, page.usages)) <= max(max_bytes, SIZE)
        ids += map(int, page.usages)
        following = parse_cursor(page.cursor)
        assert following is not None
        assert not page.has_more or following != after, "no progress"
        after = following
        if not page.has_more:
            break
    assert ids == expected
    assert [position_of(after, number) for number in range(len(matches))] == list(map(len, matches))


def test_usage_that_arrives_with_a_low_id_comes_in_a_later_page() -> None:
    strides = Strides.fixed(2)

    def page_of(number: int, *seqs: int) -> PartitionPage:
        items = [Item(strides.id_of(seq, number), Seq(seq), b"%d" % seq) for seq in seqs]
        return PartitionPage(number, strides, items, Seq(max(seqs, default=0)), is_end=True)

    page = merge_pages([page_of(0, 100), page_of(1)], (), 10, 100)
    assert (page.cursor, page.has_more) == ("100.0", False)
    after = parse_cursor(page.cursor) or ()
    late = merge_pages([page_of(0)._replace(through=Seq(100)), page_of(1, 1)], after, 10, 100)
    assert late.usages == [b"1"]
    assert late.cursor == "100.1"


def test_cursor_outlives_a_change_of_the_number_of_partitions() -> None:
    few, many = Strides.fixed(1), Strides.fixed(4)
    item = Item(many.id_of(1, 3), Seq(1), b"new")
    added = PartitionPage(3, many, [item], Seq(1), is_end=True)
    page = merge_pages([added], (Seq(7),), 10, 100)
    assert (page.usages, page.cursor) == ([b"new"], "7.0.0.1")
    fewer = merge_pages(
        [PartitionPage(0, few, [], Seq(9), is_end=True)], parse_cursor("7.0.0.1") or (), 10, 100
    )
    assert fewer.cursor == "9.0.0.1"


def test_what_is_no_cursor_is_refused() -> None:
    for text in ("", "x", "1.", ".1", "-1", "1,2", "1" * 17, "٣", "1\n"):
        assert parse_cursor(text) is None, text
    assert parse_cursor("0") == (0,)
