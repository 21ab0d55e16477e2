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

from busyapi.errors import RedisAway
from busyapi.stream.keys import Keys
from busyapi.stream.scripts import REMEMBER
from busyapi.stream.wire import Command, ServerError, Wire, evalsha

# What each tier needs. `everysec` can lose answered writes even when only the process dies,
# and `no-appendfsync-on-rewrite yes` skips the fsync even under `always`.
ALWAYS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
NEEDS = {"fsync": ALWAYS, "replicated": ALWAYS, "memory": {"maxmemory-policy": "noeviction"}}

SYNC_MS = 3000
"""How long an fsync may take while the log is rewritten. It must end before a wire gives up."""
PROBE_SECONDS = 60

NOT_IN_FORCE = (
    "the append-only log is not in force yet: wait until its rewrite has ended"
    " (INFO persistence: aof_rewrite_in_progress, aof_rewrite_scheduled)"
)


class Server(NamedTuple):
    """What a server says of itself."""

    run_id: str
    """The process, and its replication history: a server that was demoted and promoted again
    has the same run_id, and may have lost what the other never got."""
    role: str
    replicas: int
    promoted: bool
    """It was a replica of another server in this life."""
    memory_bytes: int
    memory_max_bytes: int
    """0 when it has no limit."""
    weak: str = ""
    """Which lines make it weaker than its tier, "" if it holds it."""


class Inspector:
    """Inspects one partition's server for one lane or flusher, and remembers its log's state."""

    def __init__(self, tier: str, keys: Keys, replicas: int = 1) -> None:
        self.tier = tier
        self.replicas = replicas if tier == "replicated" else 0
        """How many must confirm, and the most that may be connected."""
        self._keys = keys
        self._in_force: tuple[str, int] | None = None
        """Server, and number of CONFIG SETs, at the last look that found the log in force."""

    async def inspect(self, wire: Wire) -> Server:
        """Ask a server who it is, and compare its settings and its state with the tier.

        Raises:
            RedisAway: the connection failed, or the server does not tell.
        """
        sections = "server", "replication", "memory", "persistence", "commandstats"
        *infos, config = await wire.call(
            *(("INFO", each) for each in sections), ("CONFIG", "GET", *ALWAYS)
        )
        facts: dict[str, str] = {}
        for reply in infos:
            if isinstance(reply, ServerError):
                raise RedisAway(f"Redis at {wire.address}: INFO is refused ({reply.code})")
            facts |= _info(reply)
        if not {"run_id", "role", "master_replid"} <= facts.keys():
            raise RedisAway(f"Redis at {wire.address} does not tell its run_id: is it a proxy?")
        server = Server(
            f"{facts['run_id']}-{facts['master_replid']}",
            facts["role"],
            int(facts.get("connected_slaves", 0)),
            facts.get("master_replid2", "0").strip("0") != "",
            int(facts.get("used_memory", 0)),
            int(facts.get("maxmemory", 0)),
        )
        return server._replace(weak=await self._weak(wire, config, facts, server))

    async def _weak(self, wire: Wire, config: object, facts: dict[str, str], server: Server) -> str:
        if not isinstance(config, list):
            return f"Redis does not let CONFIG GET be asked, so tier {self.tier} cannot be checked"
        texts = [each.decode() for each in config]
        settings = dict(zip(texts[::2], texts[1::2], strict=True))
        lines = [
            f"{name} is {settings.get(name, 'unknown')}: set `{name} {wanted}`"
            for name, wanted in NEEDS[self.tier].items()
            if settings.get(name) != wanted
        ]
        if server.role == "master" and self.tier != "memory":
            lines += _replicas(self.replicas, facts) if self.replicas else []
            # It costs a write, and is asked when it decides.
            lines += await self._log(wire, facts, server) if not lines else []
        if not lines:
            return ""
        return f"Redis is weaker than BUSYAPI_DURABILITY={self.tier}: {'; '.join(lines)}"

    async def _log(self, wire: Wire, facts: dict[str, str], server: Server) -> list[str]:
        """Say why what is written now may not be there after a restart."""
        if facts.get("aof_enabled") != "1":
            return ["the append-only log is off (INFO persistence: aof_enabled)"]
        if facts.get("aof_last_write_status") != "ok":
            return ["the last write to the append-only log failed: look at its volume"]
        changes = _calls(facts, "config|set")
        if "1" in {facts.get("aof_rewrite_in_progress"), facts.get("aof_rewrite_scheduled")}:
            in_force = await self._judge(wire)
            if in_force is None:
                in_force = self._was_in_force(server, changes)
            if not in_force:
                return [NOT_IN_FORCE]
        self._in_force = server.run_id, changes
        return []

    async def _judge(self, wire: Wire) -> bool | None:
        """Ask WAITAOF; None when the server cannot be asked.

        It counts from a connection's last write: without one it would judge nothing.
        """
        probe = evalsha(REMEMBER, [self._keys.probe], "1", PROBE_SECONDS)
        ask: Command = ("WAITAOF", 1, 0, SYNC_MS)
        written, synced = await wire.call(probe, ask)
        if isinstance(written, ServerError) or isinstance(synced, ServerError):
            return None
        return bool(synced[0] >= 1)

    def _was_in_force(self, server: Server, changes: int) -> bool:
        """Return whether the log was in force at the last look, and has not been off since.

        To switch it off and on again takes two CONFIG SETs.
        """
        if self._in_force is None:
            return False
        run_id, earlier = self._in_force
        return run_id == server.run_id and 0 <= changes - earlier < 2  # noqa: PLR2004 - see above


def _replicas(wanted: int, facts: dict[str, str]) -> list[str]:
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


def _calls(facts: dict[str, str], command: str) -> int:
    found = facts.get(f"cmdstat_{command}", "").partition(",")[0]  # such as calls=3,usec=20,…
    return int(found.removeprefix("calls=") or 0)


def _info(raw: bytes) -> dict[str, str]:
    lines = (each.partition(":") for each in raw.decode(errors="replace").splitlines())
    return {name: value for name, _, value in lines}
