"""Do all who count agree? The only thing that makes the benchmark fail."""

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
    """Likewise, its `archived`, when nothing was left in the buffer."""
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
        """Statuses that nobody should have got. 499 nobody did: wrk was gone."""
        return {k: n for k, n in sorted(self.statuses.items()) if k not in {CREATED, CLIENT_GONE}}


def disagreements(counts: Counts) -> list[str]:
    """Say what does not agree; nothing if all does."""
    found = []
    if not counts.stored == counts.counted == counts.archived == counts.lines:
        found.append(
            f"the API says it stored {counts.stored:,}, the count says {counts.counted:,},"
            f" of them archived {counts.archived:,}, the archive's files hold {counts.lines:,}"
        )
    if counts.fault:
        found.append(counts.fault)
    if counts.seen > counts.stored:
        found.append(f"201 was seen for {counts.seen:,}, but only {counts.stored:,} were stored")
    if counts.stored > counts.seen + counts.cut_off:
        found.append(
            f"{counts.stored:,} were stored, but 201 was seen for {counts.seen:,}, and at most"
            f" {counts.cut_off:,} were under way when wrk ended"
        )
    if counts.not_201:
        others = ", ".join(f"{n:,} with {status}" for status, n in counts.not_201.items())
        found.append(f"requests were answered otherwise than with 201: {others}")
    if counts.errors:
        found.append(f"wrk saw {counts.errors:,} errors")
    return found
