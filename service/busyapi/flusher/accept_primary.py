"""`busyapi archive accept-primary`: an operator names the server whose data counts from now on.

The flusher refuses a primary that may lack acknowledged usages, because only an operator can know
that the servers with all of them are lost for good.
"""

import asyncio
import sys
from pathlib import Path
from typing import NamedTuple

from busyapi.archive import paths
from busyapi.archive.holders import Holders, read_holders, write_accepted
from busyapi.errors import ArchiveError
from busyapi.output import flush_output, write_output
from busyapi.stream.connection import ServerError
from busyapi.stream.durability import parse_info
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.replica_server import ReplicaServer, ServerData, inspect_replica
from busyapi.stream.replicas import VIEW_COMMAND, parse_view
from busyapi.stream.sentinel_view import read_view


class PrimaryNotAccepted(ArchiveError):
    """Nothing was recorded."""


class Servers(NamedTuple):
    """The primary and every other server that may have usages."""

    address: str
    server_id: str
    inspected: list[ReplicaServer]


def accept_primary(endpoint: Endpoint, root: Path, partition: int, *, confirmed: bool) -> None:
    """Print what each server holds, and record that the present primary is accepted.

    The flusher forgets all other servers when it reads the record, which is for this process of the
    primary only. It need not be stopped.

    Raises:
        PrimaryNotAccepted: the operator did not type the address, or another flusher decides.
        RedisUnavailable: there is no primary.
    """
    key_names = endpoint.key_names(partition)
    if not key_names.is_decider:
        raise PrimaryNotAccepted(
            f"the flusher of partition {key_names.decider} decides: set --partition"
        )
    folder = paths.partition_folder(root, partition)
    if not (folder / paths.IDENTITY_NAME).exists():
        raise PrimaryNotAccepted(f"partition {partition} is not in {root}")
    holders = read_holders(folder)
    servers = asyncio.run(_inspect(endpoint, key_names, holders))
    for server in servers.inspected:
        is_primary = server.address == servers.address
        write_output(f"{_describe(server, holders, is_primary=is_primary)}\n")
    if not confirmed:
        _require_address(servers.address)
    write_accepted(folder, servers.server_id)
    write_output(f"recorded: the flusher accepts {servers.address} within seconds\n")


async def _inspect(endpoint: Endpoint, key_names: PartitionKeys, holders: Holders) -> Servers:
    connection = await endpoint.connect(key_names.partition)
    try:
        info, server = await connection.pipeline(VIEW_COMMAND, ("INFO", "server"))
    finally:
        await connection.close()
    for reply in (info, server):
        if isinstance(reply, ServerError):
            raise PrimaryNotAccepted(f"Redis refuses INFO: {reply}")
    facts = parse_info(info) | parse_info(server)
    address = connection.address
    view = await read_view(endpoint) if endpoint.mode == "sentinel" else None
    addresses = {address} | parse_view(info).listed | holders.addresses
    addresses |= view.listed if view else set()
    inspected = await asyncio.gather(
        *(inspect_replica(endpoint, server, key_names) for server in sorted(addresses))
    )
    return Servers(address, f"{facts['run_id']}-{facts['master_replid']}", inspected)


def _describe(server: ReplicaServer, holders: Holders, *, is_primary: bool) -> str:
    role = "primary" if is_primary else "replica"
    if not server.was_reached:
        text = "cannot be reached"
    elif server.data.seq is None:
        text = "no data of this partition"
    else:
        text = f"seq {server.data.seq}"
    return f"{server.address}  {role}  {text}  {_describe_holder(server, holders)}".rstrip()


def _describe_holder(server: ReplicaServer, holders: Holders) -> str:
    run_id = holders.processes.get(server.address)
    if server.data == ServerData():
        return "held every acknowledged usage" if run_id else ""
    if server.data.run_id in holders.processes.values():
        return "holds every acknowledged usage"
    return "held every acknowledged usage before its restart" if run_id else ""


def _require_address(address: str) -> None:
    write_output(
        "Usages that only other servers hold will be lost: a server that follows this primary"
        f" deletes them.\nType {address} to accept it: "
    )
    flush_output()
    if sys.stdin.readline().strip() != address:
        raise PrimaryNotAccepted("nothing was recorded, because the address was not typed")
