"""Pages of a query, one after the other, are the matching usages of the archive."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busyapi.archive import high_water
from busyapi.archive.identity import read_identity
from busyapi.archive.ranges import SeqRange
from busyapi.archive_cli.line_filter import Query
from busyapi.archive_cli.page import Page, PageLimits, Visibility, read_page
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveDamaged
from busyapi.ids import Seq
from testkit.archive.builder import (
    RECEIVED_MS,
    abandon_writer,
    find_open_segment,
    find_segments,
    make_batch,
    recover_writer,
)

MANY = PageLimits(1000, 1 << 20, 10.0)
NO_TIME = PageLimits(1000, 1 << 20, 0.0)
PATIENT = Query(patients=frozenset(["3"]))


def open_partition(root: Path) -> ArchivePartition:
    identity = read_identity(root / "p00")
    assert identity
    return ArchivePartition(root / "p00", identity)


def build(root: Path, steps: list[int]) -> tuple[Seq, list[int]]:
    """Append batches of these sizes; 0 finishes the segment, and a negative number is a gap.

    Return the cursor and the seqs that are usages. A batch is received a second after the last.
    """
    writer = recover_writer(root)
    seqs: list[int] = []
    for at, step in enumerate(steps):
        if step > 0:
            first = writer.cursor + 1
            writer.append([make_batch(first, step, RECEIVED_MS + at * 1000)])
            seqs += range(first, first + step)
        elif step < 0:
            writer.record_gap(Seq(writer.cursor - step), "a test")
        else:
            writer.close()
            writer = recover_writer(root)
    cursor = writer.cursor
    abandon_writer(writer)
    return cursor, seqs


def read_pages(root: Path, cursor: Seq, query: Query, limits: Iterator[PageLimits]) -> list[int]:
    """Read until the cursor; check that each page makes progress."""
    after, seqs = 0, []
    while after < cursor:
        limit = next(limits)
        page = read_page(open_partition(root), SeqRange(Seq(after + 1), cursor), query, limit)
        assert len(page.lines) <= limit.usages
        assert after < page.through <= cursor
        assert all(after < seq <= page.through for seq, _ in page.lines)
        assert all(line.startswith(b'{"id":%d,' % seq) for seq, line in page.lines)
        seqs += [int(seq) for seq, _ in page.lines]
        after = page.through
    return seqs


@settings(max_examples=25)
@given(
    st.lists(st.one_of(st.integers(1, 40), st.integers(-5, 0)), min_size=1, max_size=12),
    st.integers(0, 1 << 30),
    st.sampled_from([None, (2, 5), (0, 1), (4, None)]),
)
def test_pages_are_the_matching_usages_whatever_ends_them(
    steps: list[int], seed: int, seconds: tuple[int, int | None] | None
) -> None:
    rng = random.Random(seed)
    first, last = seconds or (0, None)
    since, until = RECEIVED_MS + first * 1000, last and RECEIVED_MS + last * 1000
    query = PATIENT._replace(since_ms=since, until_ms=until)

    def choose() -> Iterator[PageLimits]:
        while True:
            yield PageLimits(
                rng.choice([1, 2, 1000]), rng.choice([1, 1 << 20]), rng.choice([0.0, 10.0])
            )

    with TemporaryDirectory() as folder:
        root = Path(folder)
        cursor, seqs = build(root, steps)
        times, seq = {}, 0
        for at, step in enumerate(steps):
            for _ in range(abs(step)):
                seq += 1
                times[seq] = RECEIVED_MS + at * 1000
        expected = [
            seq
            for seq in seqs
            if seq % 7 == 3 and since <= times[seq] and (until is None or times[seq] < until)
        ]
        assert read_pages(root, cursor, query, choose()) == expected


def test_page_out_of_time_says_how_far_it_came_without_a_match(tmp_path: Path) -> None:
    cursor, _ = build(tmp_path, [10, 0, 10, 10])
    nobody = Query(patients=frozenset(["nobody"]))
    page = read_page(open_partition(tmp_path), SeqRange(Seq(1), cursor), nobody, NO_TIME)
    assert page == Page([], Seq(10), lacks_filter=True)
    page = read_page(open_partition(tmp_path), SeqRange(Seq(11), cursor), nobody, MANY)
    assert page == Page([], Seq(30), lacks_filter=False)


def test_time_of_a_page_begins_when_the_files_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each page of an archive with very many files would be one block."""
    cursor, _ = build(tmp_path, [10, 10, 10])
    read_mark = high_water.read_mark

    def read_slowly(folder: Path, archive_id: str) -> Seq:
        time.sleep(1.1)
        return read_mark(folder, archive_id)

    monkeypatch.setattr(high_water, "read_mark", read_slowly)
    limits = MANY._replace(seconds=1.0)
    page = read_page(open_partition(tmp_path), SeqRange(Seq(1), cursor), PATIENT, limits)
    assert page.through == cursor


@pytest.mark.parametrize("limits", [MANY, NO_TIME, MANY._replace(usages=1)])
def test_missing_or_damaged_file_before_the_end_of_a_page_is_an_error(
    tmp_path: Path, limits: PageLimits
) -> None:
    cursor, _ = build(tmp_path, [10, 0, 10, 0, 10])
    last, whole = find_segments(tmp_path)[1], SeqRange(Seq(12), cursor)
    content = last.read_bytes()
    for damage in (lambda: last.write_bytes(content[:40]), last.unlink):
        damage()
        with pytest.raises(ArchiveDamaged):
            read_page(open_partition(tmp_path), whole, PATIENT, limits)
    last.write_bytes(content)
    assert read_page(open_partition(tmp_path), whole, PATIENT, limits).lines
    # An open segment that recovery left behind has other seqs.
    leftover = last.with_name("usages-p00-0000000000000001.ndjson.zst.open")
    leftover.touch()
    last.unlink()
    with pytest.raises(ArchiveDamaged):
        read_page(open_partition(tmp_path), whole, PATIENT, limits)
    leftover.unlink()
    last.write_bytes(content)
    # What the page does not reach does not matter to it.
    find_open_segment(tmp_path).unlink()
    page = read_page(
        open_partition(tmp_path), SeqRange(Seq(1), Seq(20)), PATIENT, MANY._replace(usages=2)
    )
    assert [seq for seq, _ in page.lines] == [3, 10]


def test_page_of_what_may_be_seen_ends_where_it_would_without_other_usages(tmp_path: Path) -> None:
    one, other = b',"writer":"aaaaaaaaaaaaaaaa"', b',"writer":"bbbbbbbbbbbbbbbb","tenant":"north"'
    stamps = [b"", one, other]
    writer = recover_writer(tmp_path)
    for seq in range(1, 31):
        batch = make_batch(seq)
        writer.append([batch._replace(usages=batch.usages + stamps[seq % 3])])
    abandon_writer(writer)

    def read(visibility: Visibility | None, usages: int) -> tuple[list[int], int]:
        page = read_page(
            open_partition(tmp_path),
            SeqRange(Seq(1), Seq(30)),
            PATIENT,
            MANY._replace(usages=usages),
            visibility,
        )
        return [seq for seq, _ in page.lines], page.through

    assert read(None, 9) == ([3, 10, 17, 24], 30)
    assert read(Visibility(writer="aaaaaaaaaaaaaaaa"), 2) == ([10], 30)
    assert read(Visibility(tenant="north"), 1) == ([17], 17)
    assert read(Visibility(tenant="north", writer="aaaaaaaaaaaaaaaa"), 9) == ([10, 17], 30)
    assert read(Visibility(), 1) == ([], 30)
