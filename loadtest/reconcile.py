"""Compare all counts; a disagreement makes a run fail.

sent = 201 + refused + unknown, and 201 ≤ archived ≤ 201 + unknown. A request without an answer (the
tool ended, the connection broke) may or may not be stored. A usage that was answered with 201 is
archived once, and no other usage is archived.
"""

from dataclasses import dataclass

from loadtest.target import State, Verified


@dataclass(frozen=True)
class ToolCounts:
    """The counts of a load tool, in usages."""

    tool: str
    sent: int
    created: int
    """Answered with 201."""
    refused: int = 0
    """The answer says that nothing was stored."""
    unknown: int = 0
    """No answer, or one that does not say whether it was stored."""
    not_sent: int = 0
    """Planned, but never sent."""
    unexpected: int = 0
    """Requests with an unexpected answer: 201 for an invalid body, an error for a valid one."""
    duplicates: int = 0
    """201s with the id of another 201."""


@dataclass(frozen=True)
class Row:
    """The counts of one run, by all that count."""

    tool: str
    sent: int
    created: int
    refused: int
    unknown: int
    stored: int
    """Ids issued during the run, by the API's count."""
    archived: int
    """New lines in the archive."""
    duplicates: int
    missing: int
    damaged: int
    proven: bool
    """Whether `busyapi archive verify` counted; otherwise only the API did."""


def reconcile(counts: ToolCounts, before: State, after: State) -> Row:
    """Compare a tool's counts with the change of the target's state."""
    archived = after.archived - before.archived
    old, new = before.verified or Verified(), after.verified or Verified()
    proven = before.verified is not None and after.verified is not None
    if proven:
        archived = new.lines - old.lines
    return Row(
        tool=counts.tool,
        sent=counts.sent,
        created=counts.created,
        refused=counts.refused,
        unknown=counts.unknown,
        stored=after.count - before.count,
        archived=archived,
        duplicates=counts.duplicates + new.repeated,
        missing=max(new.missing, counts.created - archived, 0),
        damaged=new.damaged,
        proven=proven,
    )


def find_disagreements(counts: ToolCounts, row: Row) -> list[str]:
    """Return a line for each disagreement between the counts."""
    problems = []
    if counts.sent != counts.created + counts.refused + counts.unknown:
        problems.append(
            f"{counts.sent:,} were sent, but {counts.created:,} answered with 201,"
            f" {counts.refused:,} refused and {counts.unknown:,} unknown"
        )
    if row.missing:
        problems.append(f"{row.missing:,} are missing from the archive")
    if row.archived > row.created + row.unknown:
        extra = row.archived - row.created - row.unknown
        problems.append(f"{extra:,} are archived but were not sent, or another load ran as well")
    if row.duplicates:
        problems.append(f"{row.duplicates:,} ids were issued or archived twice")
    if row.stored != row.archived:
        problems.append(
            f"the API stored {row.stored:,} usages, but the archive has {row.archived:,} new lines"
        )
    if row.damaged:
        problems.append(f"{row.damaged:,} places of the archive are damaged")
    if counts.unexpected:
        problems.append(f"{counts.unexpected:,} had an unexpected answer")
    if counts.not_sent:
        problems.append(f"{counts.not_sent:,} were planned and not sent")
    return problems


HEAD = ("tool", "sent", "201", "refused", "unknown", "stored", "archived", "duplicates", "missing")


def cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row."""
    numbers = (row.sent, row.created, row.refused, row.unknown, row.stored, row.archived)
    return (row.tool, *(f"{entry:,}" for entry in (*numbers, row.duplicates, row.missing)))


def table(rows: list[Row]) -> str:
    """Return rows in columns."""
    lines = [HEAD, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
