"""A partition's record in Redis, read as one."""

from typing import NamedTuple

from busyapi.ids import Seq
from busyapi.stream.connection import Command
from busyapi.stream.keys import PartitionKeys


class PartitionState(NamedTuple):
    """The epoch record with the counter beside it. `None` and "" mean that it is not there."""

    epoch: str
    """Names a history of ids. It changes exactly when ids may have been lost."""
    run_id: str
    """The server that was vouched for (see `durability.ServerInfo`): a copy of the data has it too,
    but runs as another."""
    partitions: int | None
    bound: int
    archived: Seq
    skipped: int
    """Seqs up to `archived` that no usage has: the archive's gaps."""
    doubt: str
    """Why a restart of this server must be taken for a loss, "" if it need not."""
    seq: Seq | None
    archive_id: str = ""
    """The archive that the partition was seeded from."""
    installation: str = ""
    """The installation that its flusher belongs to, "" if it has no id."""


FIELDS = (
    "epoch",
    "run_id",
    "partitions",
    "bound",
    "archived",
    "skipped",
    "doubt",
    "archive_id",
    "installation",
)


def state_commands(keys: PartitionKeys) -> tuple[Command, Command]:
    """Make the two commands whose replies `parse_state` takes."""
    return ("HMGET", keys.state, *FIELDS), ("GET", keys.seq)


def parse_state(record: list[bytes | None], seq: bytes | None) -> PartitionState:
    """Read the two replies."""
    epoch, run_id, partitions, bound, archived, skipped, doubt, archive_id, installation = (
        None if each is None else each.decode() for each in record
    )
    return PartitionState(
        epoch=epoch or "",
        run_id=run_id or "",
        partitions=int(partitions) if partitions else None,
        bound=int(bound or 0),
        archived=Seq(int(archived or 0)),
        skipped=int(skipped or 0),
        doubt=doubt or "",
        seq=None if seq is None else Seq(int(seq)),
        archive_id=archive_id or "",
        installation=installation or "",
    )
