"""The partition's record in Redis, as its flusher writes it."""

import asyncio
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from busyapi.archive.writer import PartitionWriter
from busyapi.errors import DurabilityNotMet
from busyapi.flusher.ownership import PartitionConfig
from busyapi.ids import Seq
from busyapi.stream.durability import ServerInfo
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.entry import MAX_VERSION
from busyapi.stream.partition import OwnedPartition
from busyapi.stream.snapshot import PartitionSnapshot
from busyapi.stream.state import record_strides


def require_tier(server: ServerInfo) -> None:
    """Check that the server meets the tier.

    Raises:
        DurabilityNotMet: it does not.
    """
    # The flusher archives the usages of a server below its tier, which are in danger, but allows no
    # new commits.
    if server.durability_error:
        raise DurabilityNotMet(server.durability_error)


def doubt_reason(server: ServerInfo, tier: str) -> str:
    """Return why a restart of this server must count as a loss, "" if it need not."""
    if tier == "memory":
        return "tier memory"
    if server.replicas:
        # A replica that is promoted and restarted would look like this server after a restart.
        return "it has had replicas"
    if server.trust:
        # If the trust was wrong, a restart has lost usages, and their ids must not come again.
        return "its durability is trusted, not checked"
    return ""


def make_record(
    snapshot: PartitionSnapshot,
    writer: PartitionWriter,
    config: PartitionConfig,
    endpoint: Endpoint,
) -> dict[str, Any]:
    """Return all fields but the epoch."""
    return {
        "installation": endpoint.installation,
        "run_id": snapshot.server.server_id,
        **record_strides(writer.identity.strides),
        "paused": "",
        "total": max(config.partitions, snapshot.state.total),
        "server": endpoint.first_partition,
        "archive_id": writer.identity.archive_id,
        # The archive has recorded this bound already, so that a later jump is wide enough.
        "bound": config.bound,
        "entries": MAX_VERSION,
        "skipped": writer.stats.skipped_seqs,
        "doubt": snapshot.state.doubt or doubt_reason(snapshot.server, config.tier),
    }


def mint_epoch(why: str, epoch: str = "") -> dict[str, Any]:
    """Return the fields of an epoch, by default of a new one."""
    minted = datetime.now(UTC).isoformat(timespec="seconds")
    epoch = epoch or token_hex(8)
    return {"epoch": epoch, "keys_epoch": epoch, "minted_at": minted, "why": why}


async def write_record(
    partition: OwnedPartition,
    writer: PartitionWriter,
    record: dict[str, Any],
    seq: Seq | None = None,
) -> None:
    """Seed the partition with a record, and the counter if `seq` is given."""
    if not writer.identity.prefix:
        # This precedes the seed, so that a later start uses no other keys, and no other server.
        update = asyncio.to_thread(
            writer.update_identity,
            prefix=partition.key_names.prefix,
            server=partition.endpoint.first_partition,
        )
        await partition.await_with_lease(update)
    await partition.seed(writer.cursor, record, seq=seq)
