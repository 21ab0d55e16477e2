"""Do all who count agree? What makes a run fail.

sent = 201 + refused + unknown, and 201 ≤ archived ≤ 201 + unknown: of a request whose answer was
not seen (the tool ended, the connection broke) nobody can tell whether it was stored, but a usage
that was answered is archived, once, and nothing is archived that nobody sent.
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


def reconcile(said: Said, before: State, after: State) -> Row:
    """Hold a tool's counts against what changed meanwhile."""
    archived = after.archived - before.archived
    old, new = before.verified or Verified(), after.verified or Verified()
    proven = before.verified is not None and after.verified is not None
    if proven:
        archived = new.lines - old.lines
    return Row(
        tool=said.tool,
        sent=said.sent,
        created=said.created,
        refused=said.refused,
        unknown=said.unknown,
        stored=after.count - before.count,
        archived=archived,
        repeated=said.repeated + new.repeated,
        missing=max(new.missing, said.created - archived, 0),
        damaged=new.damaged,
        proven=proven,
    )


def disagreements(said: Said, row: Row) -> list[str]:
    """Say what does not agree; nothing if all does."""
    found = []
    if said.sent != said.created + said.refused + said.unknown:
        found.append(
            f"{said.sent:,} were sent, but {said.created:,} answered with 201,"
            f" {said.refused:,} refused and {said.unknown:,} unknown"
        )
    if row.missing:
        found.append(f"{row.missing:,} are missing from the archive")
    if row.archived > row.created + row.unknown:
        extra = row.archived - row.created - row.unknown
        found.append(f"{extra:,} are archived that nobody sent, or another load ran as well")
    if row.repeated:
        found.append(f"{row.repeated:,} ids were given out or archived twice")
    if row.stored != row.archived:
        found.append(f"the API stored {row.stored:,}, the archive has {row.archived:,} more")
    if row.damaged:
        found.append(f"{row.damaged:,} places of the archive are damaged")
    if said.unexpected:
        found.append(f"{said.unexpected:,} were answered otherwise than their body deserves")
    if said.not_sent:
        found.append(f"{said.not_sent:,} were planned and not sent")
    return found


HEAD = ("tool", "sent", "201", "refused", "unknown", "stored", "archived", "repeated", "missing")


def cells(row: Row) -> tuple[str, ...]:
    """Give a row as it is printed."""
    numbers = (row.sent, row.created, row.refused, row.unknown, row.stored, row.archived)
    return (row.tool, *(f"{each:,}" for each in (*numbers, row.repeated, row.missing)))


def table(rows: list[Row]) -> str:
    """Print rows in columns."""
    lines = [HEAD, *(cells(each) for each in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
