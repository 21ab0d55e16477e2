"""Compare all counts of usages. Only a disagreement makes the benchmark fail."""

from dataclasses import dataclass

CREATED = 201
CLIENT_GONE = 499


@dataclass(frozen=True)
class Counts:
    """The numbers of usages from the start of one stack to its end, as each part counts them."""

    seen: int
    """Usages in answers with 201 to wrk and to the benchmark's own requests."""
    cut_off: int
    """The most that were pending when wrk closed its connections: these may be stored too."""
    sent: int
    """Usages in requests that the API answered with any status (busyapi_requests_total)."""
    stored: int
    """Committed usages by the API's metric (busyapi_usages_total)."""
    counted: int
    """GET /api/usages/count."""
    archived: int
    """`archived` of the same answer, with an empty buffer."""
    lines: int
    """Lines in the archive's files."""
    fault: str
    """The place where the files' ids do not continue 1, 2, 3, …; "" if they do."""
    statuses: dict[int, int]
    """The statuses of the requests that the API answered."""
    errors: int
    """Answers of 400 and more, and socket errors, as wrk counts them."""

    @property
    def not_201(self) -> dict[int, int]:
        """Return the unexpected statuses, without 499: wrk had closed these connections."""
        return {k: n for k, n in sorted(self.statuses.items()) if k not in {CREATED, CLIENT_GONE}}


def find_disagreements(counts: Counts) -> list[str]:
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
            f" {counts.cut_off:,} were pending when wrk ended"
        )
    if counts.not_201:
        others = ", ".join(f"{n:,} with {status}" for status, n in counts.not_201.items())
        problems.append(f"requests had another answer than 201: {others}")
    if counts.errors:
        problems.append(f"wrk saw {counts.errors:,} errors")
    return problems
