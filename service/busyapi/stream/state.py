"""A partition's record in Redis."""

from typing import NamedTuple

from busyapi.ids import Seq
from busyapi.stream.connection import Command
from busyapi.stream.keys import PartitionKeys
from busyapi.strides import Strides


class PartitionState(NamedTuple):
    """The epoch record and the counter. `None` or "" means that Redis does not have the value."""

    epoch: str
    """Identifies a history of ids. It changes exactly when ids may have been lost."""
    server_id: str
    """The server that the partition was seeded on (see `durability.ServerInfo`). A copy of the data
    has this value too, but its server has another id. In Redis the field is called `run_id`."""
    strides: Strides | None
    """How seqs become ids. A record without them, as 0.2.0 writes it, has its number of partitions
    as its only stride."""
    bound: int
    archived: Seq
    skipped: int
    """Number of seqs up to `archived` without a usage: the archive's gaps."""
    doubt: str
    """Why a restart of this server must count as a loss, "" if it need not."""
    seq: Seq | None
    archive_id: str = ""
    """The archive that the partition was seeded from."""
    installation: str = ""
    """The installation that its flusher belongs to, "" if it has no id."""
    entry_version: int = 1
    """The highest version of stream entries that its flusher reads. In Redis the field is called
    `entries`; 0.2.0 does not write it."""
    paused: str = ""
    """The epoch that the flusher has revoked while it widens the stride."""
    total: int = 0
    """The largest number of partitions that its flusher knows of: those that have left count."""
    server: int = 0
    """The lowest partition of the server that it was seeded on, as BUSYAPI_REDIS_URL had it."""


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
    "entries",
    "strides",
    "paused",
    "total",
    "server",
)


def state_commands(key_names: PartitionKeys) -> tuple[Command, Command]:
    """Return the two commands whose replies `parse_state` parses."""
    return ("HMGET", key_names.state, *FIELDS), ("GET", key_names.seq)


def parse_state(record: list[bytes | None], seq: bytes | None) -> PartitionState:
    """Parse the replies to `state_commands`."""
    texts = [None if value is None else value.decode() for value in record]
    epoch, server_id, partitions, bound, archived, skipped, doubt, *others = texts
    archive_id, installation, entries, strides, paused, total, server = others
    return PartitionState(
        epoch=epoch or "",
        server_id=server_id or "",
        strides=_parse_strides(strides, partitions),
        bound=int(bound or 0),
        archived=Seq(int(archived or 0)),
        skipped=int(skipped or 0),
        doubt=doubt or "",
        seq=None if seq is None else Seq(int(seq)),
        archive_id=archive_id or "",
        installation=installation or "",
        entry_version=int(entries or 1),
        paused=paused or "",
        total=int(total or partitions or 0),
        server=int(server or 0),
    )


def _parse_strides(strides: str | None, partitions: str | None) -> Strides | None:
    if strides:
        return Strides.parse(strides)
    return Strides.fixed(int(partitions)) if partitions else None


def record_strides(strides: Strides) -> dict[str, str | int]:
    """Return the fields of the record for strides.

    An older busyapi computes ids from `partitions` alone. It refuses 0.
    """
    partitions = strides.base if strides.is_fixed else 0
    return {"partitions": partitions, "strides": strides.encode()}


def continue_epoch(epoch: str) -> str:
    """Return the next epoch of the same history: no id was lost, but the strides have changed."""
    history, _, number = epoch.partition(".")
    return f"{history}.{int(number or 0) + 1}"


def is_same_history(epoch: str, other: str) -> bool:
    """Return whether no id was lost between two epochs, so that a batch may be sent again."""
    return epoch.partition(".")[0] == other.partition(".")[0]


NO_RECORD = parse_state([None] * len(FIELDS), None)
"""What Redis has of a partition that was never seeded."""
