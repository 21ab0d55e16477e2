"""Check that the archive has every acknowledged usage, and each usage once.

`check_history` compares a history with an archive and returns a verdict: numbers, and every defect
with its count and first examples. It assumes nothing about how busyapi works inside.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from testkit.archive_reader import Archive, Line, Partition
from testkit.history import History, Outcome, Request

MAX_EXAMPLES = 5


class Defect(StrEnum):
    """A kind of defect that the checker finds."""

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
    WRONG_WRITER = "archived with the stamp of another writer"
    HOLE = "seq neither archived nor accounted for"
    """By a gap record or a quarantine file."""
    OVERLAP = "seq accounted for twice"
    ORDER = "id below the one archived before it"
    WRONG_PARTITION = "id in the files of another partition"
    DAMAGED = "file that cannot be read"


@dataclass
class Verdict:
    """The result of a check. `assert verdict.ok, verdict` shows all of it."""

    history: History
    archived: int
    skipped: int
    """Seqs in gap records."""
    unknown_archived: int
    """The number of archived usages whose outcome is unknown."""
    defects: Counter[Defect] = field(default_factory=Counter)
    examples: dict[Defect, list[str]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Return whether there is no defect."""
        return not self.defects

    def add_defect(self, defect: Defect, example: str) -> None:
        """Count one defect."""
        self.defects[defect] += 1
        self.examples.setdefault(defect, [])
        if len(self.examples[defect]) < MAX_EXAMPLES:
            self.examples[defect].append(example)

    def __str__(self) -> str:
        numbers = (
            f"{self.archived} usages archived, {self.unknown_archived} of them of unknown outcome;"
            f" {self.skipped} seqs skipped"
        )
        lines = [str(self.history), numbers]
        for defect, n in self.defects.most_common():
            lines.append(f"{n} x {defect}:")
            lines += [f"    {example}" for example in self.examples[defect]]
        return "\n".join(lines if self.defects else [*lines, "no defect"])


def check_history(history: History, archive: Archive, *, partitions: int = 1) -> Verdict:
    """Compare the answers with the archive.

    `partitions` is the number at install; how it changed is in the archive.

    The archive must hold the usages of this history and no others. Usages still in the buffer
    count as missing: wait until all is archived before reading the archive.
    """
    lines = [line for partition in archive.partitions.values() for line in partition.lines]
    copies = Counter(line.digest for line in lines)
    verdict = Verdict(
        history=history,
        archived=len(lines),
        skipped=sum(
            gap.last - gap.first + 1 for p in archive.partitions.values() for gap in p.gaps
        ),
        unknown_archived=sum(copies[digest] > 0 for digest in _digests(history, Outcome.UNKNOWN)),
    )
    _check_answers(verdict)
    owners = {line.id: n for n, part in archive.partitions.items() for line in part.lines}
    _check_real_time(verdict, owners, partitions)
    _check_acknowledged(verdict, archive, copies, partitions)
    _check_unacknowledged(verdict, copies)
    _check_all_sent(verdict, lines)
    for number, partition in archive.partitions.items():
        _check_order(verdict, number, partition, partitions)
        _check_contiguity(verdict, number, partition, partitions)
    for message in archive.damaged:
        verdict.add_defect(Defect.DAMAGED, message)
    return verdict


def _digests(history: History, outcome: Outcome) -> Iterator[bytes]:
    return (
        digest
        for request in history.requests
        if request.outcome is outcome
        for digest in request.digests
    )


def _acknowledged(history: History) -> list[Request]:
    return [request for request in history.requests if request.outcome is Outcome.OK]


def _check_answers(verdict: Verdict) -> None:
    """Compare the answers with each other, without the archive."""
    requests = _acknowledged(verdict.history)
    for request in requests:
        if len(request.ids) != len(request.digests):
            example = f"{len(request.ids)} ids for {len(request.digests)} usages"
            verdict.add_defect(Defect.UNREADABLE_ANSWER, example)
    for usage_id, n in Counter(i for request in requests for i in request.ids).items():
        if n > 1:
            verdict.add_defect(Defect.ID_ANSWERED_TWICE, f"id {usage_id}, {n} times")


def _check_real_time(verdict: Verdict, owners: dict[int, int], partitions: int) -> None:
    """Check that ids of the same partition that were answered before are below a request's ids."""
    requests = _acknowledged(verdict.history)
    answered = sorted(requests, key=lambda request: request.answered)
    highest: Counter[int] = Counter()
    known = 0
    for request in sorted(requests, key=lambda request: request.sent):
        while answered[known].answered < request.sent:
            for usage_id in answered[known].ids:
                number = owners.get(usage_id, (usage_id - 1) % partitions)
                highest[number] = max(highest[number], usage_id)
            known += 1
        for usage_id in request.ids:
            before = highest[owners.get(usage_id, (usage_id - 1) % partitions)]
            if usage_id < before:
                verdict.add_defect(Defect.WENT_BACK, f"id {usage_id} after {before}")


def _check_acknowledged(
    verdict: Verdict, archive: Archive, copies: Counter[bytes], partitions: int
) -> None:
    """Check that every acknowledged usage is archived under its id, and once."""
    by_id = {line.id: line for partition in archive.partitions.values() for line in partition.lines}
    for request in _acknowledged(verdict.history):
        for usage_id, digest in zip(request.ids, request.digests, strict=False):
            line = by_id.get(usage_id)
            if line is None:
                verdict.add_defect(*_explain_missing(archive, usage_id, partitions))
            elif line.digest != digest:
                verdict.add_defect(Defect.MISMATCH, f"id {usage_id} in {line.file}")
            if copies[digest] > 1:
                verdict.add_defect(Defect.ARCHIVED_TWICE, f"the usage answered with id {usage_id}")


def _explain_missing(archive: Archive, usage_id: int, partitions: int) -> tuple[Defect, str]:
    """Return the defect and the example for an id without a line."""
    for number, partition in archive.partitions.items():
        seq = partition.find_seq(usage_id, number, partitions) or 0
        for span in partition.quarantined:
            if span.first <= seq <= span.last:
                return Defect.QUARANTINED, f"id {usage_id} in {span.file}"
        for span in partition.gaps:
            if span.first <= seq <= span.last:
                return Defect.MISSING, f"id {usage_id}, skipped by {span.file}"
    return Defect.MISSING, f"id {usage_id}"


def _check_unacknowledged(verdict: Verdict, copies: Counter[bytes]) -> None:
    """Check that refused usages are not archived, and those of unknown outcome at most once."""
    for digest in _digests(verdict.history, Outcome.REFUSED):
        if copies[digest]:
            verdict.add_defect(Defect.REFUSED_PRESENT, f"digest {digest.hex()}")
    for digest in _digests(verdict.history, Outcome.UNKNOWN):
        if copies[digest] > 1:
            verdict.add_defect(
                Defect.UNKNOWN_TWICE, f"digest {digest.hex()}, {copies[digest]} times"
            )


def _check_all_sent(verdict: Verdict, lines: list[Line]) -> None:
    """Check that every archived usage was sent, and has the stamp of its writer."""
    writers = {
        digest: request.writer for request in verdict.history.requests for digest in request.digests
    }
    for line in lines:
        writer = writers.get(line.digest)
        if writer is None:
            verdict.add_defect(Defect.NEVER_SENT, f"id {line.id} in {line.file}")
        elif writer != line.writer:
            verdict.add_defect(Defect.WRONG_WRITER, f"id {line.id} in {line.file}")


def _check_order(verdict: Verdict, number: int, partition: Partition, partitions: int) -> None:
    """Check that ids rise from line to line and belong to the partition."""
    before = 0
    for line in partition.lines:
        if line.id < before:
            verdict.add_defect(Defect.ORDER, f"id {line.id} after {before} in {line.file}")
        if partition.find_seq(line.id, number, partitions) is None:
            verdict.add_defect(Defect.WRONG_PARTITION, f"id {line.id} in {line.file}")
        before = line.id


def _check_contiguity(verdict: Verdict, number: int, partition: Partition, partitions: int) -> None:
    """Check that every seq from 1 to the highest is archived once or accounted for once."""
    seqs = Counter(
        seq
        for line in partition.lines
        if (seq := partition.find_seq(line.id, number, partitions)) is not None
    )
    for seq, n in seqs.items():
        if n > 1:
            verdict.add_defect(Defect.ARCHIVED_TWICE, f"partition {number}, seq {seq}, {n} times")
    spans = [(seq, seq) for seq in seqs]
    spans += [(span.first, span.last) for span in partition.gaps + partition.quarantined]
    highest = 0
    for first, last in sorted(spans):
        if first > highest + 1:
            verdict.add_defect(Defect.HOLE, f"partition {number}, seq {highest + 1} to {first - 1}")
        if first <= highest:
            verdict.add_defect(Defect.OVERLAP, f"partition {number}, seq {first}")
        highest = max(highest, last)
