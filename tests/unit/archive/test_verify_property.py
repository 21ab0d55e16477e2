"""Random damage to an archive, as verify, cat, export and recovery see it.

The tests delete, cut, duplicate and change files of archives of several segments, gap records,
quarantined entries and an open segment, in one partition or two. Verify must report the damage by
kind and ids, and nothing else. The readers must return every remaining usage once.
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
from busyapi.archive_cli.export import export_table
from busyapi.archive_cli.export_options import ExportFormat
from busyapi.archive_cli.line_filter import Query
from busyapi.archive_cli.partitions import PartitionStatus, find_partitions
from busyapi.archive_cli.query import select_lines
from busyapi.archive_cli.selection import SelectedLines
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.archive_cli.verify import verify_archive
from busyapi.errors import ArchiveDamaged
from testkit.archive.builder import abandon_writer, find_open_segments, make_batch, recover_writer
from testkit.archive.damage import DAMAGES, Archive, Damage, Expected, make_archive


def parse_ids(text: str) -> set[int]:
    """Return the ids that a report names."""
    ids: set[int] = set()
    pattern = r"\bids? (\d+)(?: to (\d+)(?: in steps of (\d+))?)?"
    for first, last, step in re.findall(pattern, text):
        ids |= set(range(int(first), int(last or first) + 1, int(step or 1)))
    return ids


def list_problem_ids(root: Path) -> tuple[dict[str, set[int]], list[str]]:
    """Return the ids that verify names, by kind, and the problems that name none."""
    ids: dict[str, set[int]] = {"missing": set(), "damaged": set(), "repeated": set()}
    others = []
    for report in verify_archive(root):
        for problem in report.problems:
            # Rot in a record may make it one of a later version.
            ids["damaged" if problem.kind == "unknown" else problem.kind] |= parse_ids(
                problem.where
            )
            if not problem.where:
                others.append(problem.kind)
    return ids, others


def read_usages(root: Path) -> tuple[list[int], list[str]]:
    """Return the ids of the usages that cat prints, and its reports."""
    statuses = find_partitions(root)
    partitions = select_readable(statuses)
    reports = [status.error for status in statuses if status.error]
    ids = [parse_line(line).id for line in read_lines(partitions, reports)]
    target = root.with_suffix(".parquet")
    export_reports: list[str] = []
    lines = (SelectedLines(0, line + b"\n") for line in read_lines(partitions, export_reports))
    export_table(lines, target, ExportFormat.PARQUET, replace=True)
    assert sorted(pyarrow.parquet.read_table(target)["id"].to_pylist()) == sorted(ids)
    assert export_reports == [report for report in reports if "partition" not in report]
    return ids, reports


def select_readable(statuses: list[PartitionStatus]) -> list[ArchivePartition]:
    return [status.partition for status in statuses if status.partition]


def read_lines(partitions: list[ArchivePartition], reports: list[str]) -> Iterator[bytes]:
    for partition in partitions:
        for lines in select_lines(partition, Query(), reports.append):
            yield from lines.splitlines()


@pytest.mark.formats(1, 2)
@seed(13)
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_verify_and_the_readers_report_the_damage(fast_path: Path, data: st.DataObject) -> None:
    folder = Path(tempfile.mkdtemp(dir=fast_path))
    root, draw, expected = folder / "archive", data.draw, Expected()
    partitions = draw(st.sampled_from([1, 1, 2]))
    archives = [make_archive(root, number, partitions, draw) for number in range(partitions)]
    if partitions == 2 and draw(st.integers(0, 3)) == 0:
        victim = archives.pop(draw(st.integers(0, 1)))
        shutil.rmtree(victim.folder)
        if draw(st.booleans()):
            victim.folder.mkdir()
        expected.partitions_missing = 1
    usages = [
        i
        for archive in archives
        for path in archive.files()
        if path.name.startswith("usages")
        for i in sorted(archive.ids_of(path))
    ]
    usages = [i for archive in archives for i in sorted(set(usages) & archive.ids(1, 1000))]
    targets = [(archive, path) for archive in archives for path in archive.files()]
    victims = st.lists(st.sampled_from(targets), max_size=2, unique_by=lambda target: target[1])
    for archive, path in draw(victims):
        draw(st.sampled_from(DAMAGES))(Damage(archive, path, expected, draw))

    ids, others = list_problem_ids(root)
    assert ids["missing"] == expected.missing
    assert ids["damaged"] == expected.damaged
    assert ids["repeated"] == expected.repeated
    assert others.count("missing") == expected.partitions_missing
    assert bool(others.count("damaged")) == expected.finished_changed

    lost = expected.missing | expected.damaged
    readable = [i for i in usages if i not in lost]
    read_ids, reports = read_usages(root)
    assert read_ids == readable
    reported = set[int]().union(*map(parse_ids, reports))
    assert (lost | expected.repeated) & set(usages) <= reported <= lost | expected.repeated
    if expected.partitions_missing:
        assert reports
    elif not reported and not expected.finished_changed:
        assert not reports
    check_recovery(archives, expected, readable)
    shutil.rmtree(folder)


def check_recovery(archives: list[Archive], expected: Expected, readable: list[int]) -> None:
    """Recover. Readable usages must stay readable, and a loss must halt the archive."""
    read_ids: list[int] = []
    is_damage_kept = False
    for archive in archives:
        root = archive.folder.parent
        before = {path.read_bytes() for path in find_open_segments(archive.folder)}
        try:
            writer = recover_writer(root, archive.partition, archive.partitions)
        except ArchiveDamaged:
            assert expected.repeated
            return
        halted = writer.stats.highest_seq > writer.cursor
        abandon_writer(writer)
        assert not halted or (expected.missing | expected.damaged) & archive.ids(
            1, writer.stats.highest_seq
        )
        aside = {path.read_bytes() for path in archive.folder.rglob("*.damaged*")}
        is_damage_kept = is_damage_kept or bool(aside & before)
        partition = ArchivePartition(archive.folder, writer.identity)
        read_ids += [parse_line(line).id for line in read_lines([partition], [])]
    assert read_ids == readable
    assert is_damage_kept or not expected.open_damaged


def test_the_checker_detects_a_verify_that_misses_or_invents(tmp_path: Path) -> None:
    """This is the control: the parser reads ids, and a wrong expectation fails."""
    assert parse_ids("ids 4 to 8 in steps of 4") == {4, 8}
    assert parse_ids("id 7 and ids 1 to 2") == {7, 1, 2}
    writer = recover_writer(tmp_path / "archive")
    writer.append([make_batch(1, 3)])
    writer.close()
    assert list_problem_ids(tmp_path / "archive")[0]["missing"] == set()
    next(tmp_path.rglob("usages*")).unlink()
    ids, others = list_problem_ids(tmp_path / "archive")
    assert (ids["missing"], others) == ({1, 2, 3}, [])
    with pytest.raises(AssertionError):
        check_recovery([Archive(tmp_path / "archive/p00", 0, 1)], Expected(), [])
