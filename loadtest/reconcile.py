"""Compare all counts; a disagreement makes a run fail.

sent = 201 + refused + unknown, and 201 ≤ archived ≤ 201 + unknown: of a request whose answer was
not seen (the tool ended, the connection broke) it is unknown whether it was stored, but a usage
that was answered is archived, once, and nothing is archived that was not sent.
"""

from dataclasses import dataclass

from loadtest.target import State, Verified


@dataclass(frozen=True)
class Said:
    """What the load's tool says, in usages."""

    tool: str
    sent: int
    created: int
    """Answered with 201."""
    refused: int = 0
    """Answered so that nothing was stored."""
    unknown: int = 0
    """Not answered, or not so that it is clear."""
    not_sent: int = 0
    """Planned, but never sent."""
    unexpected: int = 0
    """Requests answered otherwise than their body deserves."""
    repeated: int = 0
    """201s with an id that another 201 had."""


@dataclass(frozen=True)
class Row:
    """One run, as all see it."""

    tool: str
    sent: int
    created: int
    refused: int
    unknown: int
    stored: int
    """Ids given out meanwhile, says the API."""
    archived: int
    """Lines that the archive has more."""
    repeated: int
    missing: int
    damaged: int
    proven: bool
    """By `busyapi archive verify`; else the API's word is all there is."""


def reconcile(counts: Said, before: State, after: State) -> Row:
    """Compare a tool's counts with what changed meanwhile."""
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
        repeated=counts.repeated + new.repeated,
        missing=max(new.missing, counts.created - archived, 0),
        damaged=new.damaged,
        proven=proven,
    )


def disagreements(counts: Said, row: Row) -> list[str]:
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
    if row.repeated:
        problems.append(f"{row.repeated:,} ids were given out or archived twice")
    if row.stored != row.archived:
        problems.append(f"the API stored {row.stored:,}, the archive has {row.archived:,} more")
    if row.damaged:
        problems.append(f"{row.damaged:,} places of the archive are damaged")
    if counts.unexpected:
        problems.append(f"{counts.unexpected:,} were answered otherwise than their body deserves")
    if counts.not_sent:
        problems.append(f"{counts.not_sent:,} were planned and not sent")
    return problems


HEAD = ("tool", "sent", "201", "refused", "unknown", "stored", "archived", "repeated", "missing")


def cells(row: Row) -> tuple[str, ...]:
    """Return a row as it is printed."""
    numbers = (row.sent, row.created, row.refused, row.unknown, row.stored, row.archived)
    return (row.tool, *(f"{entry:,}" for entry in (*numbers, row.repeated, row.missing)))


def table(rows: list[Row]) -> str:
    """Print rows in columns."""
    lines = [HEAD, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
