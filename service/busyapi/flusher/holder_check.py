"""Whether a server may lack acknowledged usages although it is a holder.

A holder confirmed every acknowledged usage. Its process still has them while it keeps the
replication history in which it confirmed them. But an address outlives its server: a process that
has restarted there may have lost its volume. And a process copies the data of its primary, which
may have restarted on an older volume. So the data is compared with what the archive knows:

    the record       names this archive, as in each copy of the data
    holders.json     a seq that every holder had, and the history
    the archive      the last archived usage. The flusher may have read it before a replica had it,
                     so it is required only of processes that have restarted or changed history
"""

from typing import NamedTuple

from busyapi.archive.holders import Holders
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import DurabilityNotMet, WaitingForParent
from busyapi.ids import Seq
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.replica_server import ServerData
from busyapi.stream.replica_store import PrimaryReplicas


class ArchiveEvidence(NamedTuple):
    """What the archive knows about the data of its partition."""

    archive_id: str
    last_usage: Seq
    """The last archived usage."""


def has_restarted(data: ServerData, holders: Holders) -> bool:
    """Return whether a process is another one than those that became holders."""
    return data.run_id not in holders.processes.values()


def find_doubt(data: ServerData, holders: Holders) -> str:
    """Return why a holder may have lost what it confirmed, "" if it has all of it.

    A promotion begins a new history, which continues that of the former primary.
    """
    if has_restarted(data, holders):
        return "has restarted"
    if holders.replid not in {data.replid, data.previous_replid}:
        return "has copied the data of a server that began another history"
    return ""


def find_missing_data(data: ServerData, holders: Holders, archive: ArchiveEvidence) -> str:
    """Return what shows that a server lacks acknowledged usages, "" if nothing does."""
    if data.seq is None or not data.archive_id:
        return "it has no data of this partition, or refuses to be read"
    if data.archive_id != archive.archive_id:
        return f"its data belongs to archive {data.archive_id}"
    if data.seq < holders.seq:
        return f"it ends at seq {data.seq}, and every holder had seq {holders.seq}"
    if data.seq < archive.last_usage and (doubt := find_doubt(data, holders)):
        return f"it {doubt}, and ends at seq {data.seq} before seq {archive.last_usage}"
    return ""


def find_predecessors(primary: PrimaryReplicas, holders: Holders) -> tuple[str, ...]:
    """Return the ids of the servers whose acknowledged usages a primary has, all of them.

    Its data has the record of its predecessor. It has that one's usages if its own history
    continues that one's. A process that has restarted proves nothing: its volume may be an older
    one. The same holds for one that has copied the data of such a server.
    """
    record = primary.record
    if record is None:
        return ()
    if record.server_id == primary.server_id:
        return record.predecessors
    if has_restarted(primary.data, holders) or record.replid != primary.data.previous_replid:
        return ()
    return record.list_predecessors()


def read_evidence(writer: PartitionWriter) -> ArchiveEvidence:
    """Return what an open archive knows."""
    return ArchiveEvidence(writer.identity.archive_id, writer.stats.last_usage)


def require_decision(
    partition: OwnedPartition, writer: PartitionWriter, primary: PrimaryReplicas
) -> tuple[str, ...]:
    """Return the predecessors that the decider of this server has recorded.

    Raises:
        WaitingForParent: the partition is new, and the decider may itself wait for its parent.
        DurabilityNotMet: the decider has not accepted the server.
    """
    decider = f"the flusher of partition {partition.key_names.decider}"
    if primary.record is None and writer.identity.is_new:
        raise WaitingForParent(f"waiting for {decider}: it decides for this server")
    if primary.record is None or primary.record.server_id != primary.server_id:
        raise DurabilityNotMet(
            f"{decider} has not yet accepted the server {primary.address}: see its /readyz"
        )
    return primary.record.predecessors
