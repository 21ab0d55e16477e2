"""The history checker: does the archive hold what the devices were told, and each usage once?

`check` compares a history with an archive and returns a verdict: figures, and every defect with
its count and first examples. It takes no position on how busyapi works inside.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from testkit.archive_reader import Archive, Line, Partition
from testkit.history import History, Outcome, Request

MAX_EXAMPLES = 5


class Defect(StrEnum):
    """What the checker can find wrong."""

    MISSING = "acknowledged but missing"
    QUARANTINED = "acknowledged but only in quarantine"
    MISMATCH = "id acknowledged for one usage, archived with another"
    REFUSED_PRESENT = "refused but archived"
    UNKNOWN_TWICE = "unknown and archived more than once"
    ARCHIVED_TWICE = "archived more than once"
    ID_ANSWERED_TWICE = "id answered for two usages"
    UNREADABLE_ANSWER = "acknowledged without one id for each usage"
    WENT_BACK = "id not above one that was answered before the request was sent"
    NEVER_SENT = "archived but never sent"
    HOLE = "seq neither archived nor accounted for"
    """By a gap record or a quarantine file."""
    OVERLAP = "seq accounted for twice"
    ORDER = "id below the one archived before it"
    WRONG_PARTITION = "id in the files of another partition"
    DAMAGED = "file that cannot be read"


@dataclass
class Verdict:
    """What the checker found. `assert verdict.ok, verdict` shows all of it."""

    history: History
    archived: int
    skipped: int
    """Seqs in gap records."""
    unknown_archived: int
    """Of the usages whose outcome is unknown, those that the archive holds."""
    defects: Counter[Defect] = field(default_factory=Counter)
    examples: dict[Defect, list[str]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no defect."""
        return not self.defects

    def add_defect(self, defect: Defect, example: str) -> None:
        """Count one defect."""
        self.defects[defect] += 1
        self.examples.setdefault(defect, [])
        if len(self.examples[defect]) < MAX_EXAMPLES:
            self.examples[defect].append(example)

    def __str__(self) -> str:
        figures = (
            f"{self.archived} usages archived, {self.unknown_archived} of them of unknown outcome;"
            f" {self.skipped} seqs skipped"
        )
        lines = [str(self.history), figures]
        for defect, n in self.defects.most_common():
            lines.append(f"{n} x {defect}:")
            lines += [f"    {example}" for example in self.examples[defect]]
        return "\n".join(lines if self.defects else [*lines, "no defect"])


def check_history(history: History, archive: Archive, *, partitions: int = 1) -> Verdict:
    """Hold what was answered against what is archived.

    The archive must hold the usages of this history and no others. Usages still in the buffer
    count as missing: wait until all is archived before reading the archive.
    """
    lines = [line for each in archive.partitions.values() for line in each.lines]
    copies = Counter(line.digest for line in lines)
    verdict = Verdict(
        history=history,
        archived=len(lines),
        skipped=sum(
            gap.last - gap.first + 1 for p in archive.partitions.values() for gap in p.gaps
        ),
        unknown_archived=sum(copies[each] > 0 for each in _digests(history, Outcome.UNKNOWN)),
    )
    _check_answers(verdict)
    _check_real_time(verdict, partitions)
    _check_acknowledged(verdict, archive, copies, partitions)
    _check_unacknowledged(verdict, copies)
    _check_strangers(verdict, lines)
    for number, partition in archive.partitions.items():
        _check_order(verdict, number, partition, partitions)
        _check_contiguity(verdict, number, partition, partitions)
    for message in archive.damaged:
        verdict.add_defect(Defect.DAMAGED, message)
    return verdict


def _digests(history: History, outcome: Outcome) -> Iterator[bytes]:
    return (d for each in history.requests if each.outcome is outcome for d in each.digests)


def _acknowledged(history: History) -> list[Request]:
    return [each for each in history.requests if each.outcome is Outcome.OK]


def _check_answers(verdict: Verdict) -> None:
    """Hold the answers against each other, without the archive."""
    requests = _acknowledged(verdict.history)
    for request in requests:
        if len(request.ids) != len(request.digests):
            what = f"{len(request.ids)} ids for {len(request.digests)} usages"
            verdict.add_defect(Defect.UNREADABLE_ANSWER, what)
    for usage_id, n in Counter(i for each in requests for i in each.ids).items():
        if n > 1:
            verdict.add_defect(Defect.ID_ANSWERED_TWICE, f"id {usage_id}, {n} times")


def _check_real_time(verdict: Verdict, partitions: int) -> None:
    """Every id that some device knew before a request was sent must be below the request's own."""
    requests = _acknowledged(verdict.history)
    answered = sorted(requests, key=lambda each: each.answered)
    highest: Counter[int] = Counter()
    known = 0
    for request in sorted(requests, key=lambda each: each.sent):
        while answered[known].answered < request.sent:
            for usage_id in answered[known].ids:
                number = (usage_id - 1) % partitions
                highest[number] = max(highest[number], usage_id)
            known += 1
        for usage_id in request.ids:
            before = highest[(usage_id - 1) % partitions]
            if usage_id < before:
                verdict.add_defect(Defect.WENT_BACK, f"id {usage_id} after {before}")


def _check_acknowledged(
    verdict: Verdict, archive: Archive, copies: Counter[bytes], partitions: int
) -> None:
    """Every acknowledged usage must be archived under its id, and once."""
    by_id = {line.id: line for each in archive.partitions.values() for line in each.lines}
    for request in _acknowledged(verdict.history):
        for usage_id, digest in zip(request.ids, request.digests, strict=False):
            line = by_id.get(usage_id)
            if line is None:
                verdict.add_defect(*_whereabouts(archive, usage_id, partitions))
            elif line.digest != digest:
                verdict.add_defect(Defect.MISMATCH, f"id {usage_id} in {line.file}")
            if copies[digest] > 1:
                verdict.add_defect(Defect.ARCHIVED_TWICE, f"the usage answered with id {usage_id}")


def _whereabouts(archive: Archive, usage_id: int, partitions: int) -> tuple[Defect, str]:
    """Say what became of an id that has no line."""
    seq, number = (usage_id - 1) // partitions + 1, (usage_id - 1) % partitions
    partition = archive.partitions.get(number, Partition())
    for span in partition.quarantined:
        if span.first <= seq <= span.last:
            return Defect.QUARANTINED, f"id {usage_id} in {span.file}"
    for span in partition.gaps:
        if span.first <= seq <= span.last:
            return Defect.MISSING, f"id {usage_id}, skipped by {span.file}"
    return Defect.MISSING, f"id {usage_id}"


def _check_unacknowledged(verdict: Verdict, copies: Counter[bytes]) -> None:
    """A refused usage must not be archived, one with an unknown outcome at most once."""
    for digest in _digests(verdict.history, Outcome.REFUSED):
        if copies[digest]:
            verdict.add_defect(Defect.REFUSED_PRESENT, f"digest {digest.hex()}")
    for digest in _digests(verdict.history, Outcome.UNKNOWN):
        if copies[digest] > 1:
            verdict.add_defect(
                Defect.UNKNOWN_TWICE, f"digest {digest.hex()}, {copies[digest]} times"
            )


def _check_strangers(verdict: Verdict, lines: list[Line]) -> None:
    """What is archived must have been sent."""
    sent = {d for each in verdict.history.requests for d in each.digests}
    for line in lines:
        if line.digest not in sent:
            verdict.add_defect(Defect.NEVER_SENT, f"id {line.id} in {line.file}")


def _check_order(verdict: Verdict, number: int, partition: Partition, partitions: int) -> None:
    """Ids must rise from line to line and belong to the partition."""
    before = 0
    for line in partition.lines:
        if line.id < before:
            verdict.add_defect(Defect.ORDER, f"id {line.id} after {before} in {line.file}")
        if (line.id - 1) % partitions != number:
            verdict.add_defect(Defect.WRONG_PARTITION, f"id {line.id} in {line.file}")
        before = line.id


def _check_contiguity(verdict: Verdict, number: int, partition: Partition, partitions: int) -> None:
    """Every seq from 1 to the highest must be archived once or accounted for once."""
    seqs = Counter((line.id - 1) // partitions + 1 for line in partition.lines)
    for seq, n in seqs.items():
        if n > 1:
            verdict.add_defect(Defect.ARCHIVED_TWICE, f"partition {number}, seq {seq}, {n} times")
    spans = [(seq, seq) for seq in seqs]
    spans += [(each.first, each.last) for each in partition.gaps + partition.quarantined]
    reached = 0
    for first, last in sorted(spans):
        if first > reached + 1:
            verdict.add_defect(Defect.HOLE, f"partition {number}, seq {reached + 1} to {first - 1}")
        if first <= reached:
            verdict.add_defect(Defect.OVERLAP, f"partition {number}, seq {first}")
        reached = max(reached, last)
