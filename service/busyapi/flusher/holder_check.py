"""Whether a server may lack acknowledged usages although it is a holder.

A holder confirmed every acknowledged usage. Its process still has them. But an address outlives its
server: a process that has restarted there may have lost its volume, and every server that copied
from an empty one is empty too. So the data is compared with what the archive knows:

    the record       names this archive, as in each copy of the data
    holders.json     a seq that every holder had
    the archive      the last archived usage. The flusher may have read it before a replica had it,
                     so it is asked of restarted processes only
"""

from typing import NamedTuple

from busyapi.archive.holders import Holders
from busyapi.archive.writer import PartitionWriter
from busyapi.ids import Seq
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


def find_missing_data(data: ServerData, holders: Holders, archive: ArchiveEvidence) -> str:
    """Return what shows that a server lacks acknowledged usages, "" if nothing does."""
    if data.seq is None or not data.archive_id:
        return "it has no data of this partition, or refuses to be read"
    if data.archive_id != archive.archive_id:
        return f"its data belongs to archive {data.archive_id}"
    if data.seq < holders.seq:
        return f"it ends at seq {data.seq}, and every holder had seq {holders.seq}"
    if data.seq < archive.last_usage and has_restarted(data, holders):
        return f"it has restarted, and ends at seq {data.seq} before seq {archive.last_usage}"
    return ""


def find_predecessors(primary: PrimaryReplicas, holders: Holders) -> tuple[str, ...]:
    """Return the ids of the servers whose acknowledged usages a primary has, all of them.

    Its data has the record of its predecessor. A process that has restarted proves nothing: its
    volume may be an older one.
    """
    if primary.record is None:
        return ()
    if primary.record.server_id == primary.server_id:
        return primary.record.predecessors
    if has_restarted(primary.data, holders):
        return ()
    return primary.record.list_predecessors()


def read_evidence(writer: PartitionWriter) -> ArchiveEvidence:
    """Return what an open archive knows."""
    return ArchiveEvidence(writer.identity.archive_id, writer.stats.last_usage)
