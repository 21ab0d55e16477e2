"""Is this Redis as durable as the tier that the settings promise?

    settings   CONFIG GET: what each tier needs
    replicas   INFO: `replicated` waits for a number of them, and no more may be connected
    the log    INFO: that `appendonly` is yes does not mean that a restart reads what is written now

After `CONFIG SET appendonly yes`, and on a replica after a full resync, nothing is in any file that
a restart reads until the first rewrite of the log has ended. INFO then says the same as during any
later rewrite, when the log is in force. WAITAOF tells the two apart. Redis 7.0 has none: there the
log counts as in force if it was so at the last look, and cannot have been off since.
"""

from typing import NamedTuple

from busyapi.errors import RedisUnavailable
from busyapi.stream.connection import Command, RedisConnection, ServerError, make_evalsha
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.scripts import SET_EXPIRING

# What each tier needs. `everysec` can lose answered writes even when only the process dies,
# and `no-appendfsync-on-rewrite yes` skips the fsync even under `always`.
ALWAYS_SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
REQUIRED_SETTINGS = {
    "fsync": ALWAYS_SETTINGS,
    "replicated": ALWAYS_SETTINGS,
    "memory": {"maxmemory-policy": "noeviction"},
}

FSYNC_TIMEOUT_MS = 3000
"""How long an fsync may take while the log is rewritten. It must end before a connection gives
up."""
PROBE_TTL_SECONDS = 60

AOF_NOT_ACTIVE = (
    "the append-only log is not in force yet: wait until its rewrite has ended"
    " (INFO persistence: aof_rewrite_in_progress, aof_rewrite_scheduled)"
)


class ServerInfo(NamedTuple):
    """What a server says of itself."""

    run_id: str
    """The process, and its replication history: a server that was demoted and promoted again
    has the same run_id, and may have lost what the other never got."""
    role: str
    replicas: int
    was_promoted: bool
    """It was a replica of another server in this life."""
    memory_bytes: int
    memory_max_bytes: int
    """0 when it has no limit."""
    durability_error: str = ""
    """Which lines make it weaker than its tier, "" if it holds it."""


class DurabilityInspector:
    """Inspects the server of one partition; remembers the state of its append-only log."""

    def __init__(self, tier: str, keys: PartitionKeys, replicas: int = 1) -> None:
        self.tier = tier
        self.replicas = replicas if tier == "replicated" else 0
        """How many must confirm, and the most that may be connected."""
        self._keys = keys
        self._aof_active_at: tuple[str, int] | None = None
        """Server, and number of CONFIG SETs, at the last look that found the log in force."""

    async def inspect(self, connection: RedisConnection) -> ServerInfo:
        """Ask a server who it is, and compare its settings and its state with the tier.

        Raises:
            RedisUnavailable: the connection failed, or the server does not tell.
        """
        sections = "server", "replication", "memory", "persistence", "commandstats"
        *infos, config = await connection.pipeline(
            *(("INFO", each) for each in sections), ("CONFIG", "GET", *ALWAYS_SETTINGS)
        )
        facts: dict[str, str] = {}
        for reply in infos:
            if isinstance(reply, ServerError):
                raise RedisUnavailable(
                    f"Redis at {connection.address}: INFO is refused ({reply.code})"
                )
            facts |= _parse_info(reply)
        if not {"run_id", "role", "master_replid"} <= facts.keys():
            raise RedisUnavailable(
                f"Redis at {connection.address} does not tell its run_id: is it a proxy?"
            )
        server = ServerInfo(
            f"{facts['run_id']}-{facts['master_replid']}",
            facts["role"],
            int(facts.get("connected_slaves", 0)),
            facts.get("master_replid2", "0").strip("0") != "",
            int(facts.get("used_memory", 0)),
            int(facts.get("maxmemory", 0)),
        )
        return server._replace(
            durability_error=await self._find_weakness(connection, config, facts, server)
        )

    async def _find_weakness(
        self, connection: RedisConnection, config: object, facts: dict[str, str], server: ServerInfo
    ) -> str:
        if not isinstance(config, list):
            return f"Redis does not let CONFIG GET be asked, so tier {self.tier} cannot be checked"
        texts = [each.decode() for each in config]
        settings = dict(zip(texts[::2], texts[1::2], strict=True))
        lines = [
            f"{name} is {settings.get(name, 'unknown')}: set `{name} {wanted}`"
            for name, wanted in REQUIRED_SETTINGS[self.tier].items()
            if settings.get(name) != wanted
        ]
        if server.role == "master" and self.tier != "memory":
            lines += _check_replicas(self.replicas, facts) if self.replicas else []
            # It costs a write, and is asked when it decides.
            lines += await self._check_aof(connection, facts, server) if not lines else []
        if not lines:
            return ""
        return f"Redis is weaker than BUSYAPI_DURABILITY={self.tier}: {'; '.join(lines)}"

    async def _check_aof(
        self, connection: RedisConnection, facts: dict[str, str], server: ServerInfo
    ) -> list[str]:
        """Say why what is written now may not be there after a restart."""
        if facts.get("aof_enabled") != "1":
            return ["the append-only log is off (INFO persistence: aof_enabled)"]
        if facts.get("aof_last_write_status") != "ok":
            return ["the last write to the append-only log failed: look at its volume"]
        changes = _count_calls(facts, "config|set")
        if "1" in {facts.get("aof_rewrite_in_progress"), facts.get("aof_rewrite_scheduled")}:
            in_force = await self._probe_aof(connection)
            if in_force is None:
                in_force = self._was_aof_active(server, changes)
            if not in_force:
                return [AOF_NOT_ACTIVE]
        self._aof_active_at = server.run_id, changes
        return []

    async def _probe_aof(self, connection: RedisConnection) -> bool | None:
        """Ask WAITAOF; None when the server cannot be asked.

        It counts from a connection's last write: without one it would judge nothing.
        """
        probe = make_evalsha(SET_EXPIRING, [self._keys.probe], "1", PROBE_TTL_SECONDS)
        ask: Command = ("WAITAOF", 1, 0, FSYNC_TIMEOUT_MS)
        written, synced = await connection.pipeline(probe, ask)
        if isinstance(written, ServerError) or isinstance(synced, ServerError):
            return None
        return bool(synced[0] >= 1)

    def _was_aof_active(self, server: ServerInfo, changes: int) -> bool:
        """Return whether the log was in force at the last look, and has not been off since.

        To switch it off and on again takes two CONFIG SETs.
        """
        if self._aof_active_at is None:
            return False
        run_id, earlier = self._aof_active_at
        return run_id == server.run_id and 0 <= changes - earlier < 2  # noqa: PLR2004 - see above


def _check_replicas(wanted: int, facts: dict[str, str]) -> list[str]:
    connected = int(facts.get("connected_slaves", 0))
    online = sum(
        ",state=online," in value for name, value in facts.items() if name.startswith("slave")
    )
    if connected > wanted:
        found = f"{connected} replicas are connected, and a failover may promote one of those that"
        return [f"{found} need not confirm: set BUSYAPI_REPLICAS={connected}, or disconnect them"]
    if connected == 0:
        return ["no replica is connected: add one"]
    if online < wanted:
        return [f"{online} replicas are online, BUSYAPI_REPLICAS is {wanted}: add replicas"]
    return []


def _count_calls(facts: dict[str, str], command: str) -> int:
    found = facts.get(f"cmdstat_{command}", "").partition(",")[0]  # such as calls=3,usec=20,…
    return int(found.removeprefix("calls=") or 0)


def _parse_info(raw: bytes) -> dict[str, str]:
    lines = (each.partition(":") for each in raw.decode(errors="replace").splitlines())
    return {name: value for name, _, value in lines}
