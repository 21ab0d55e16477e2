"""The figures of a load, and checks of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from testkit.checker import Defect, Verdict
from testkit.history import Outcome

LOST = (Defect.MISSING, Defect.QUARANTINED)
DUPLICATES = (Defect.ARCHIVED_TWICE, Defect.ID_ANSWERED_TWICE, Defect.UNKNOWN_TWICE)


class Sample(NamedTuple):
    """One request of an open loop."""

    planned_at: float
    """The planned time by the monotonic clock."""
    answered: float
    outcome: Outcome
    status: int
    """0 without an answer: no connection, a reset, or a timeout."""


@dataclass(frozen=True)
class Figures:
    """The figures of one load."""

    sent: int = 0
    answered: int = 0
    """Requests answered with 201."""
    failed: int = 0
    """All other requests."""
    refused: int = 0
    """Failed requests with an answer that nothing was stored: a retry is safe."""
    silence: float = 0.0
    """The longest time without a 201 during the load, in seconds."""
    p99: float = 0.0
    """Of the answered requests, from their planned times, in seconds."""
    statuses: dict[int, int] = field(default_factory=dict)


def summarise(samples: Sequence[Sample], began: float, ended: float) -> Figures:
    """Return the figures of a load."""
    good = [sample for sample in samples if sample.outcome is Outcome.OK]
    statuses: dict[int, int] = {}
    for entry in samples:
        statuses[entry.status] = statuses.get(entry.status, 0) + 1
    return Figures(
        sent=len(samples),
        answered=len(good),
        failed=len(samples) - len(good),
        refused=sum(sample.outcome is Outcome.REFUSED for sample in samples),
        silence=find_longest_silence((sample.answered for sample in good), began, ended),
        p99=quantile([sample.answered - sample.planned_at for sample in good], 0.99),
        statuses=dict(sorted(statuses.items())),
    )


def find_longest_silence(answers: Iterable[float], began: float, ended: float) -> float:
    """Return the longest time without an answer, also before the first and after the last."""
    times = [began, *sorted(at for at in answers if began <= at <= ended), ended]
    return max(after - before for before, after in pairwise(times))


def quantile(values: Sequence[float], q: float) -> float:
    """Return a quantile of values, 0 without a value."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))] if ordered else 0.0


def count_defects(verdict: Verdict, defects: Iterable[Defect]) -> int:
    """Return the number of these defects."""
    return sum(verdict.defects[defect] for defect in defects)


class ScenarioFailed(Exception):
    """A scenario failed. The message says what it found."""


def require_none_failed(result: Figures) -> None:
    """Check that every request was answered with 201.

    Raises:
        ScenarioFailed: A request failed, or none was sent.
    """
    if result.failed or not result.sent:
        raise ScenarioFailed(f"{result.failed} of {result.sent} requests failed: {result.statuses}")


def require_short_outage(result: Figures, seconds: float) -> None:
    """Check that the outage during a load was not longer than a limit.

    Raises:
        ScenarioFailed: It was longer, or no request was answered.
    """
    if result.silence > seconds or not result.answered:
        raise ScenarioFailed(f"no answer for {result.silence:.1f} s: {result.statuses}")


def require_nothing_lost(verdict: Verdict) -> None:
    """Check that the checker found no defect.

    Raises:
        ScenarioFailed: It found one.
    """
    if not verdict.ok:
        raise ScenarioFailed(str(verdict))


def require_no_skipped_ids(verdict: Verdict) -> None:
    """Check that Redis never lost data, so that no ids were skipped.

    Raises:
        ScenarioFailed: A flusher skipped ids.
    """
    if verdict.skipped:
        raise ScenarioFailed(
            f"{verdict.skipped} ids were skipped: Redis came back without its data"
        )
