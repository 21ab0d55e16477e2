"""What a load was answered, in figures, and the gates that scenarios hold them to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from testkit.checker import Defect, Verdict
from testkit.history import Outcome

LOST = (Defect.MISSING, Defect.QUARANTINED)
REPEATED = (Defect.ARCHIVED_TWICE, Defect.ID_ANSWERED_TWICE, Defect.UNKNOWN_TWICE)


class Sample(NamedTuple):
    """One request of an open loop."""

    meant: float
    """When it was to be sent, by the monotonic clock."""
    answered: float
    outcome: Outcome
    status: int
    """0 means no answer: no connection, a reset, or a timeout."""


@dataclass(frozen=True)
class Figures:
    """One load, or none."""

    sent: int = 0
    answered: int = 0
    """With 201."""
    failed: int = 0
    """Everything else."""
    refused: int = 0
    """Failed requests whose answer says that nothing was stored: a repeat is safe."""
    silence: float = 0.0
    """Longest time without a 201 while the load was on, in seconds."""
    p99: float = 0.0
    """Of those answered, from when they were meant to be sent, in seconds."""
    statuses: dict[int, int] = field(default_factory=dict)


def figures(samples: Sequence[Sample], began: float, ended: float) -> Figures:
    """Sum a load up."""
    good = [sample for sample in samples if sample.outcome is Outcome.OK]
    statuses: dict[int, int] = {}
    for entry in samples:
        statuses[entry.status] = statuses.get(entry.status, 0) + 1
    return Figures(
        sent=len(samples),
        answered=len(good),
        failed=len(samples) - len(good),
        refused=sum(sample.outcome is Outcome.REFUSED for sample in samples),
        silence=silence((sample.answered for sample in good), began, ended),
        p99=quantile([sample.answered - sample.meant for sample in good], 0.99),
        statuses=dict(sorted(statuses.items())),
    )


def silence(answers: Iterable[float], began: float, ended: float) -> float:
    """Return the longest time without an answer; before the first and after the last count too."""
    times = [began, *sorted(at for at in answers if began <= at <= ended), ended]
    return max(after - before for before, after in pairwise(times))


def quantile(values: Sequence[float], q: float) -> float:
    """Return the smallest value that so many are not above; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))] if ordered else 0.0


def count(verdict: Verdict, defects: Iterable[Defect]) -> int:
    """Return how often the checker found these."""
    return sum(verdict.defects[defect] for defect in defects)


class Broken(Exception):
    """A scenario did not show what it must; the message says what it found instead."""


def none_failed(result: Figures) -> None:
    """Hold a load to it: every request was answered with 201.

    Raises:
        Broken: one was not, or nothing was sent.
    """
    if result.failed or not result.sent:
        raise Broken(f"{result.failed} of {result.sent} requests failed: {result.statuses}")


def answered_again(result: Figures, seconds: float) -> None:
    """Hold a load through an outage to it: the outage was not longer than this.

    Raises:
        Broken: it was, or nothing was answered at all.
    """
    if result.silence > seconds or not result.answered:
        raise Broken(f"no answer for {result.silence:.1f} s: {result.statuses}")


def nothing_lost(verdict: Verdict) -> None:
    """Hold an archive to it.

    Raises:
        Broken: the checker found a defect, whichever.
    """
    if not verdict.ok:
        raise Broken(str(verdict))


def no_id_jumped(verdict: Verdict) -> None:
    """Hold an archive to it: Redis was always found with all of its data.

    Raises:
        Broken: a flusher jumped, because it was not.
    """
    if verdict.skipped:
        raise Broken(f"{verdict.skipped} ids were jumped over: Redis came back without its data")
