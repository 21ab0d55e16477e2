"""The checker reports each defect that is put into a sound run, and no other."""

from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.archive.handwritten import (
    add_request,
    make_line,
    write_gap,
    write_quarantine,
    write_segment,
)
from testkit.archive_reader import read_archive
from testkit.checker import MAX_EXAMPLES, Defect, Verdict, check_history
from testkit.history import History, Outcome

OK, REFUSED, UNKNOWN = Outcome.OK, Outcome.REFUSED, Outcome.UNKNOWN


class Run:
    """A sound run: what was answered, and the lines and gaps that go with it."""

    def __init__(self) -> None:
        self.history = History()
        add_request(self.history, OK, ["one"], [1], at=1)
        add_request(self.history, OK, ["two", "three"], [2, 3], at=2)
        add_request(self.history, REFUSED, ["no"], at=3)
        add_request(self.history, UNKNOWN, ["perhaps"], at=4)
        add_request(self.history, UNKNOWN, ["not"], at=5)
        add_request(self.history, OK, ["late"], [21], at=6)
        # Id 4 is of the request that ended unknown; 5 to 20 were jumped over.
        self.lines: list[tuple[int, str] | tuple[int, str, str]] = [
            *((1, "one"), (2, "two"), (3, "three"), (4, "perhaps"), (21, "late")),
        ]
        self.gaps = [(5, 20)]

    def check_history(self, folder: Path) -> Verdict:
        write_segment(folder, [make_line(*entry) for entry in self.lines])
        for gap in self.gaps:
            write_gap(folder, *gap)
        return check_history(self.history, read_archive(folder))


def test_sound_run_has_no_defect(tmp_path: Path) -> None:
    verdict = Run().check_history(tmp_path)
    assert verdict.ok, verdict
    assert (verdict.archived, verdict.skipped, verdict.unknown_archived) == (5, 16, 1)
    assert str(verdict).splitlines() == [
        "6 requests (6 x none): usages 4 acknowledged, 1 refused, 2 unknown",
        "5 usages archived, 1 of them of unknown outcome; 16 seqs skipped",
        "no defect",
    ]


def acknowledged_and_nowhere(run: Run) -> None:
    add_request(run.history, OK, ["gone"], [22], at=7)


def acknowledged_and_in_a_gap(run: Run) -> None:
    add_request(run.history, OK, ["gone"], [7], at=5)


def two_payloads_exchanged(run: Run) -> None:
    run.lines[1:3] = [(2, "three"), (3, "two")]


def refused_and_archived(run: Run) -> None:
    run.lines.append((22, "no"))


def unknown_under_two_ids(run: Run) -> None:
    run.lines.append((22, "perhaps"))


def line_twice(run: Run) -> None:
    run.lines.append((21, "late"))


def unknown_line_twice(run: Run) -> None:
    run.lines.insert(4, (4, "perhaps"))


def acknowledged_under_two_ids(run: Run) -> None:
    run.lines.append((22, "late"))


def id_for_two(run: Run) -> None:
    add_request(run.history, OK, ["later"], [21], at=7)


def id_twice_in_one_batch(run: Run) -> None:
    add_request(run.history, OK, ["later", "last"], [22, 22], at=7)
    run.lines.append((22, "last"))


def batch_with_too_few_ids(run: Run) -> None:
    add_request(run.history, OK, ["later", "last"], [22], at=7)
    run.lines += [(22, "later"), (23, "last")]


def answer_without_id(run: Run) -> None:
    add_request(run.history, OK, ["later"], at=7)
    run.lines.append((22, "later"))


def id_below_one_known_before(run: Run) -> None:
    run.gaps = [(5, 19)]
    run.lines.insert(4, (20, "back"))
    add_request(run.history, OK, ["back"], [20], at=7)


def id_below_one_known_after_a_lower_one(run: Run) -> None:
    run.gaps = [(5, 20), (22, 29)]
    run.lines += [(30, "high"), (31, "low"), (32, "back"), (33, "long")]
    add_request(run.history, OK, ["long"], [33], at=7, until=20)
    add_request(run.history, OK, ["back"], [32], at=8, until=9)
    add_request(run.history, OK, ["high"], [30], at=8, until=10)
    add_request(run.history, OK, ["low"], [31], at=11)


def line_that_was_never_sent(run: Run) -> None:
    run.lines.append((22, "never sent"))


def seqs_in_no_gap(run: Run) -> None:
    run.gaps = []


def first_seq_missing(run: Run) -> None:
    run.lines = run.lines[1:]


def gap_over_a_line(run: Run) -> None:
    run.gaps = [(4, 20)]


def gap_in_a_gap(run: Run) -> None:
    run.gaps.append((8, 9))


def lines_exchanged(run: Run) -> None:
    run.lines[1:3] = [(3, "three"), (2, "two")]


def writer_of_a_usage_without_one(run: Run) -> None:
    run.lines[0] = (1, "one", "someone")


def no_writer_of_a_usage_with_one(run: Run) -> None:
    add_request(run.history, OK, ["mine"], [22], at=7, writer="me")
    run.lines.append((22, "mine"))


def another_writer(run: Run) -> None:
    add_request(run.history, OK, ["mine"], [22], at=7, writer="me")
    add_request(run.history, OK, ["yours"], [23], at=8, writer="you")
    run.lines += [(22, "mine", "me"), (23, "yours", "me")]


CASES: list[tuple[Callable[[Run], None], set[Defect]]] = [
    (acknowledged_and_nowhere, {Defect.MISSING}),
    (acknowledged_and_in_a_gap, {Defect.MISSING}),
    (two_payloads_exchanged, {Defect.MISMATCH}),
    (refused_and_archived, {Defect.REFUSED_PRESENT}),
    (unknown_under_two_ids, {Defect.UNKNOWN_TWICE}),
    (line_twice, {Defect.ARCHIVED_TWICE}),
    (unknown_line_twice, {Defect.ARCHIVED_TWICE, Defect.UNKNOWN_TWICE}),
    (acknowledged_under_two_ids, {Defect.ARCHIVED_TWICE}),
    (id_for_two, {Defect.ID_ANSWERED_TWICE, Defect.MISMATCH}),
    (id_twice_in_one_batch, {Defect.ID_ANSWERED_TWICE, Defect.MISMATCH}),
    (batch_with_too_few_ids, {Defect.UNREADABLE_ANSWER}),
    (answer_without_id, {Defect.UNREADABLE_ANSWER}),
    (id_below_one_known_before, {Defect.WENT_BACK}),
    (id_below_one_known_after_a_lower_one, {Defect.WENT_BACK}),
    (line_that_was_never_sent, {Defect.NEVER_SENT}),
    (seqs_in_no_gap, {Defect.HOLE}),
    (first_seq_missing, {Defect.HOLE, Defect.MISSING}),
    (gap_over_a_line, {Defect.OVERLAP}),
    (gap_in_a_gap, {Defect.OVERLAP}),
    (lines_exchanged, {Defect.ORDER}),
    (writer_of_a_usage_without_one, {Defect.WRONG_WRITER}),
    (no_writer_of_a_usage_with_one, {Defect.WRONG_WRITER}),
    (another_writer, {Defect.WRONG_WRITER}),
]


@pytest.mark.parametrize(("break_it", "defects"), CASES, ids=[case.__name__ for case, _ in CASES])
def test_defect_is_reported(
    tmp_path: Path, break_it: Callable[[Run], None], defects: set[Defect]
) -> None:
    run = Run()
    break_it(run)
    verdict = run.check_history(tmp_path)
    assert not verdict.ok
    assert set(verdict.defects) == defects, verdict
    assert all(defect in str(verdict) for defect in defects)


def test_ids_in_the_files_of_another_partition_are_reported(tmp_path: Path) -> None:
    history = History()
    add_request(history, OK, ["a", "b"], [1, 2])
    write_segment(tmp_path, [make_line(1, "a"), make_line(2, "b")], partitions=2)
    verdict = check_history(history, read_archive(tmp_path), partitions=2)
    assert Defect.WRONG_PARTITION in verdict.defects


def test_partitions_have_their_own_seqs_and_order(tmp_path: Path) -> None:
    history = History()
    add_request(history, OK, ["b"], [2], at=1)
    add_request(history, OK, ["d"], [4], at=2)
    add_request(history, OK, ["a"], [1], at=3)
    write_segment(tmp_path, [make_line(1, "a")], partitions=2)
    write_segment(tmp_path, [make_line(2, "b"), make_line(4, "d")], partition=1, partitions=2)
    verdict = check_history(history, read_archive(tmp_path), partitions=2)
    assert verdict.ok, verdict


def test_ids_of_requests_under_way_together_may_come_in_any_order(tmp_path: Path) -> None:
    history = History()
    add_request(history, OK, ["b"], [2], at=1, until=3)
    add_request(history, OK, ["a"], [1], at=2, until=4)
    write_segment(tmp_path, [make_line(1, "a"), make_line(2, "b")])
    assert check_history(history, read_archive(tmp_path)).ok


def test_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    run = Run()
    write_segment(tmp_path, [make_line(22, "more")]).write_bytes(b"no zstd frame")
    assert set(run.check_history(tmp_path).defects) == {Defect.DAMAGED}


def test_acknowledged_and_quarantined_is_reported_and_its_seq_accounted_for(
    tmp_path: Path,
) -> None:
    run = Run()
    add_request(run.history, OK, ["unread"], [22], at=7)
    add_request(run.history, OK, ["after"], [24], at=8)
    run.lines.append((24, "after"))
    write_quarantine(tmp_path, 22, 23)
    assert set(run.check_history(tmp_path).defects) == {Defect.QUARANTINED}


def test_every_defect_has_a_case() -> None:
    cases = set[Defect]().union(*(defects for _, defects in CASES))
    others = {Defect.WRONG_PARTITION, Defect.DAMAGED, Defect.QUARANTINED}
    assert cases | others == set(Defect)


def test_summary_counts_all_and_shows_the_first(tmp_path: Path) -> None:
    run = Run()
    for n in range(100):
        add_request(run.history, OK, [f"gone {n}"], [100 + n], at=10 + n)
    summary = str(run.check_history(tmp_path)).splitlines()
    assert summary[2] == "100 x acknowledged but missing:"
    assert summary[3:] == [f"    id {100 + n}" for n in range(MAX_EXAMPLES)]
