"""Compare all counts of usages. Only a disagreement makes the benchmark fail."""

from dataclasses import dataclass

CREATED = 201
CLIENT_GONE = 499


@dataclass(frozen=True)
class Counts:
    """The life of one stack: what each part says of how many usages there were."""

    seen: int
    """In the answers that wrk took in, and in those to our own requests."""
    cut_off: int
    """The most that were under way when wrk closed its connections: stored, the answer unseen."""
    sent: int
    """In requests that the API answered, whatever the status (busyapi_requests_total)."""
    stored: int
    """Committed and answered with 201, says the API (busyapi_usages_total)."""
    counted: int
    """GET /api/usages/count."""
    archived: int
    """From the same answer, its `archived`, when nothing was left in the buffer."""
    lines: int
    """In the archive's files."""
    fault: str
    """Where the files' ids are not 1, 2, 3, …; "" if nowhere."""
    statuses: dict[int, int]
    """Of the requests that the API answered."""
    errors: int
    """Answers of 400 and more, and socket errors, as wrk saw them."""

    @property
    def not_201(self) -> dict[int, int]:
        """Return the unexpected statuses, without 499: wrk had closed these connections."""
        return {k: n for k, n in sorted(self.statuses.items()) if k not in {CREATED, CLIENT_GONE}}


def disagreements(counts: Counts) -> list[str]:
    """Return a line for each disagreement between the counts."""
    problems = []
    if not counts.stored == counts.counted == counts.archived == counts.lines:
        problems.append(
            f"the API says it stored {counts.stored:,}, the count says {counts.counted:,},"
            f" of them archived {counts.archived:,}, the archive's files hold {counts.lines:,}"
        )
    if counts.fault:
        problems.append(counts.fault)
    if counts.seen > counts.stored:
        problems.append(f"201 was seen for {counts.seen:,}, but only {counts.stored:,} were stored")
    if counts.stored > counts.seen + counts.cut_off:
        problems.append(
            f"{counts.stored:,} were stored, but 201 was seen for {counts.seen:,}, and at most"
            f" {counts.cut_off:,} were under way when wrk ended"
        )
    if counts.not_201:
        others = ", ".join(f"{n:,} with {status}" for status, n in counts.not_201.items())
        problems.append(f"requests were answered otherwise than with 201: {others}")
    if counts.errors:
        problems.append(f"wrk saw {counts.errors:,} errors")
    return problems
