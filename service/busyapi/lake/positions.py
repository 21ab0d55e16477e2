"""How far the table has come, in the properties of its snapshots.

A snapshot that adds usages also says up to which seq of each partition the table has them. Data and
position are one Iceberg commit, so a process that dies leaves both or neither. Every snapshot of
busyapi has the positions of all partitions: those that it did not change are copied from the one
before. Snapshots of other programs have none, so the newest one that has them counts.

    busyapi.p00 = <archive id> <seq>[ <first>-<last> …]     the ranges: seqs that the table lacks
"""

import re
from collections.abc import Mapping
from typing import NamedTuple, Self

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from busyapi.archive.ranges import SeqRange
from busyapi.errors import BusyapiError
from busyapi.ids import Seq

_NAME = re.compile(r"busyapi\.p(\d{2,})")
_VALUE = re.compile(r"(\S+) (\d+)((?: \d+-\d+)*)")


class WrongTable(BusyapiError):
    """This table cannot be continued."""


class Position(NamedTuple):
    """How far the table has come in one partition."""

    archive_id: str
    seq: Seq
    """Every usage up to it is in the table, except those of `missing`."""
    missing: tuple[SeqRange, ...] = ()
    """Retention deleted them before they were taken."""

    def encode(self) -> str:
        """Return the text of the property."""
        ranges = (f" {first}-{last}" for first, last in self.missing)
        return f"{self.archive_id} {self.seq}{''.join(ranges)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse what `encode` returns.

        Raises:
            WrongTable: the text has another form.
        """
        if not (match := _VALUE.fullmatch(text)):
            raise WrongTable(f"a snapshot has the position {text!r}, which is unreadable")
        pairs = (part.split("-") for part in match[3].split())
        missing = tuple(SeqRange(Seq(int(first)), Seq(int(last))) for first, last in pairs)
        return cls(match[1], Seq(int(match[2])), missing)


Positions = Mapping[int, Position]


def encode_positions(positions: Positions) -> dict[str, str]:
    """Return the properties of a snapshot."""
    return {
        f"busyapi.p{number:02d}": position.encode()
        for number, position in sorted(positions.items())
    }


def find_positioned(table: Table) -> Snapshot | None:
    """Return the snapshot whose positions count; None in a table without any snapshot.

    Only ancestors of the current snapshot count: what was rolled back is taken again.

    Raises:
        WrongTable: the table has data, and no snapshot says which.
    """
    current = table.current_snapshot()
    for snapshot in ancestors_of(current, table.metadata):
        if _read(snapshot):
            return snapshot
    if current is None:
        return None
    name = ".".join(table.name())
    raise WrongTable(
        f"no snapshot of the table {name} says which usages it has: another program filled it, or"
        " has expired the snapshots of busyapi. Name a new table with BUSYAPI_LAKE_TABLE"
    )


def read_positions(table: Table) -> dict[int, Position]:
    """Return the position of each partition that the table has usages of; raise as above."""
    snapshot = find_positioned(table)
    return _read(snapshot) if snapshot else {}


def _read(snapshot: Snapshot) -> dict[int, Position]:
    properties = snapshot.summary.additional_properties if snapshot.summary else {}
    return {
        int(match[1]): Position.parse(value)
        for name, value in properties.items()
        if (match := _NAME.fullmatch(name))
    }
