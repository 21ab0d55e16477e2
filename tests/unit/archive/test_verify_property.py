"""What is done to an archive at random, and what verify, cat, export and recovery make of it.

Archives of several segments, gap records, quarantined entries and an open segment, in one partition
or two, are deleted from, cut, duplicated and changed. Verify must name what was done, by kind and
ids, and complain of nothing else; the readers must give every usage that is left, once.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from busyapi.archive.archived_usage import parse_line
from busyapi.archive_cli.export import export_parquet
from busyapi.archive_cli.partitions import PartitionStatus, find_partitions
from busyapi.archive_cli.query import Query, select_lines
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.archive_cli.verify import verify_archive
from busyapi.errors import ArchiveDamaged
from testkit.archive.builder import abandon_writer, make_batch, recover_writer
from testkit.archive.damage import DAMAGES, Archive, Damage, Expected, make_archive


def parsed(text: str) -> set[int]:
    """Read the ids that a complaint names."""
    found: set[int] = set()
    pattern = r"\bids? (\d+)(?: to (\d+)(?: in steps of (\d+))?)?"
    for first, last, step in re.findall(pattern, text):
        found |= set(range(int(first), int(last or first) + 1, int(step or 1)))
    return found


def named(root: Path) -> tuple[dict[str, set[int]], list[str]]:
    """Return the ids that verify names, by kind, and the problems that name none."""
    ids: dict[str, set[int]] = {"missing": set(), "damaged": set(), "repeated": set()}
    others = []
    for report in verify_archive(root):
        for problem in report.problems:
            # Rot in a record may make it one of a later version.
            ids["damaged" if problem.kind == "unknown" else problem.kind] |= parsed(problem.where)
            if not problem.where:
                others.append(problem.kind)
    return ids, others


def read(root: Path) -> tuple[list[int], list[str]]:
    """Return the ids that cat gives, and its complaints."""
    said: list[str] = []
    places = find_partitions(root)
    said += [each.error for each in places if each.error]
    found = [parse_line(line).id for each in lines(places_of(places), said) for line in each]
    target = root.with_suffix(".parquet")
    again: list[str] = []
    export_parquet(lines(places_of(places), again), target)
    assert pyarrow.parquet.read_table(target)["id"].to_pylist() == found
    assert again == [each for each in said if "partition" not in each]
    return found, said


def places_of(places: list[PartitionStatus]) -> list[ArchivePartition]:
    return [each.partition for each in places if each.partition]


def lines(partitions: list[ArchivePartition], said: list[str]) -> Iterator[list[bytes]]:
    for each in partitions:
        yield from select_lines(each, Query(), said.append)


@seed(13)
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_verify_and_the_readers_say_what_was_done(fast_path: Path, data: st.DataObject) -> None:
    folder = Path(tempfile.mkdtemp(dir=fast_path))
    root, draw, expected = folder / "archive", data.draw, Expected()
    partitions = draw(st.sampled_from([1, 1, 2]))
    made = [make_archive(root, number, partitions, draw) for number in range(partitions)]
    if partitions == 2 and draw(st.integers(0, 3)) == 0:
        victim = made.pop(draw(st.integers(0, 1)))
        shutil.rmtree(victim.folder)
        if draw(st.booleans()):
            victim.folder.mkdir()
        expected.partitions_missing = 1
    usages = [
        i
        for each in made
        for path in each.files()
        if path.name.startswith("usages")
        for i in sorted(each.ids_of(path))
    ]
    usages = [i for each in made for i in sorted(set(usages) & each.ids(1, 1000))]
    targets = [(each, path) for each in made for path in each.files()]
    some = st.lists(st.sampled_from(targets), max_size=2, unique_by=lambda each: each[1])
    for archive, path in draw(some):
        draw(st.sampled_from(DAMAGES))(Damage(archive, path, expected, draw))

    ids, others = named(root)
    assert ids["missing"] == expected.missing
    assert ids["damaged"] == expected.damaged
    assert ids["repeated"] == expected.repeated
    assert others.count("missing") == expected.partitions_missing
    assert bool(others.count("damaged")) == expected.doubt

    gone = expected.missing | expected.damaged
    left = [i for i in usages if i not in gone]
    found, complaints = read(root)
    assert found == left
    told = set[int]().union(*map(parsed, complaints))
    assert (gone | expected.repeated) & set(usages) <= told <= gone | expected.repeated
    if expected.partitions_missing:
        assert complaints
    elif not told and not expected.doubt:
        assert not complaints
    recovery_keeps(made, expected, left)
    shutil.rmtree(folder)


def recovery_keeps(made: list[Archive], expected: Expected, left: list[int]) -> None:
    """Recover: what could be read can be read after it, and what is gone halts the archive."""
    found: list[int] = []
    kept = False
    for each in made:
        root = each.folder.parent
        before = {path.read_bytes() for path in each.folder.rglob("*.open")}
        try:
            writer = recover_writer(root, each.partition, each.partitions)
        except ArchiveDamaged:
            assert expected.repeated
            return
        halted = writer.stats.highest_seq > writer.cursor
        abandon_writer(writer)
        assert not halted or (expected.missing | expected.damaged) & each.ids(
            1, writer.stats.highest_seq
        )
        aside = {path.read_bytes() for path in each.folder.rglob("*.damaged*")}
        kept = kept or bool(aside & before)
        found += [
            parse_line(line).id
            for part in lines([ArchivePartition(each.folder, writer.identity)], [])
            for line in part
        ]
    assert found == left
    assert kept or not expected.open_damaged


def test_the_checker_would_see_a_verify_that_misses_or_invents(tmp_path: Path) -> None:
    """The control: the parser of complaints reads ids, and an expectation that is wrong fails."""
    assert parsed("ids 4 to 8 in steps of 4") == {4, 8}
    assert parsed("id 7 and ids 1 to 2") == {7, 1, 2}
    writer = recover_writer(tmp_path / "archive")
    writer.append([make_batch(1, 3)])
    writer.close()
    assert named(tmp_path / "archive")[0]["missing"] == set()
    next(tmp_path.rglob("usages*")).unlink()
    ids, others = named(tmp_path / "archive")
    assert (ids["missing"], others) == ({1, 2, 3}, [])
    with pytest.raises(AssertionError):
        recovery_keeps([Archive(tmp_path / "archive/p00", 0, 1)], Expected(), [])
