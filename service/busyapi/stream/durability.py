"""Checks whether a Redis server meets the configured durability tier.

    settings   CONFIG GET: the values that the tier requires; if it is refused, INFO, and what the
               operator said that may be trusted (`unchecked_settings`)
    replicas   INFO and the flusher's record: those that must confirm are connected (`replicas`)
    AOF        INFO: `appendonly yes` does not yet mean that a restart reads what is written now

After `CONFIG SET appendonly yes`, and on a replica after a full resync, the files that a restart
reads have no data until the first rewrite of the append-only file has ended. INFO looks the same
then as during later rewrites, when the file is active. WAITAOF distinguishes the two. Redis 7.0
lacks WAITAOF: there the file counts as active if it was active at the last check and cannot have
been off since.
"""

from typing import Any, NamedTuple

import structlog

from busyapi.errors import RedisUnavailable
from busyapi.stream.connection import Command, RedisConnection, ServerError, make_evalsha
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.replicas import (
    VIEW_COMMAND,
    ReplicaView,
    describe_unconfirmed,
    parse_record,
    parse_view,
)
from busyapi.stream.scripts import SET_EXPIRING
from busyapi.stream.unchecked_settings import SettingsReport, read_settings

log = structlog.get_logger()

# `everysec` can lose acknowledged writes even when only the process dies, and
# `no-appendfsync-on-rewrite yes` skips the fsync even under `always`.
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

FIRST_WITH_WAITAOF = (7, 2)
FSYNC_TIMEOUT_MS = 3000
"""How long an fsync may take while the AOF is rewritten. It is below the reply timeout of a
connection."""
PROBE_TTL_SECONDS = 60

AOF_WRITE_FAILED = (
    "the last write to the append-only file failed: the disk of Redis is full or failing."
    " Give it space (INFO persistence: aof_last_write_status)"
)
AOF_NOT_ACTIVE = (
    "the append-only file is not active yet: wait until its rewrite has ended"
    " (INFO persistence: aof_rewrite_in_progress, aof_rewrite_scheduled)"
)
FSYNC_NOT_ALWAYS = (
    "Redis syncs its append-only file after its replies (WAITAOF, INFO persistence:"
    " aof_pending_bio_fsync), so BUSYAPI_REDIS_TRUST is wrong: set `appendfsync always` and"
    " `no-appendfsync-on-rewrite no`"
)


class ServerInfo(NamedTuple):
    """A server's identity and state, as the server reports them."""

    server_id: str
    """The process and its replication history. The run_id alone does not suffice: a server that was
    demoted and promoted again keeps it, and may have lost what the other primary never received."""
    role: str
    replicas: int
    was_promoted: bool
    """The process has been a replica of another server."""
    memory_bytes: int
    memory_max_bytes: int
    """0 if there is no limit."""
    can_confirm_aof: bool = False
    """The server has WAITAOF."""
    view: ReplicaView | None = None
    """The replicas, if commits must wait for them."""
    durability_error: str = ""
    """The settings that do not meet the tier, "" if all do."""
    trust: str = ""
    """The value of BUSYAPI_REDIS_TRUST if this server needs it, "" if all settings are checked."""


class DurabilityInspector:
    """Inspector of one partition's server. It keeps the last known state of its AOF."""

    def __init__(
        self, tier: str, key_names: PartitionKeys, min_replicas: int = 1, trust: str = ""
    ) -> None:
        self.tier = tier
        self.trust = ""
        """As `ServerInfo.trust`, at the last check."""
        self._allowed_trust = trust
        self._min_replicas = min_replicas if tier == "replicated" else 0
        """How many replicas must confirm. 0: they are not checked, as in a flusher, which decides
        about them itself."""
        self._key_names = key_names
        self._aof_active_at: tuple[str, int] | None = None
        """The server, and its number of CONFIG SETs, when the AOF was last seen active."""
        self._late_fsync_at: tuple[str, int] | None = None
        """The same when an fsync after a reply was last seen, although the server is trusted."""

    async def inspect(self, connection: RedisConnection) -> ServerInfo:
        """Return a server's identity, and compare its settings and state with the tier.

        Raises:
            RedisUnavailable: the connection failed, or the server refuses INFO.
        """
        sections = "server", "replication", "memory", "persistence", "commandstats"
        replica_commands: list[Command] = []
        if self._min_replicas:
            replica_commands = [
                VIEW_COMMAND,
                ("GET", self._key_names.replicas),
                # Without the right to wait, each batch would be stored and never confirmed.
                ("WAIT", 0, 1),
                ("WAITAOF", 0, 0, 1),
            ]
        *infos, config = await connection.pipeline(
            *replica_commands,
            *(("INFO", section) for section in sections),
            ("CONFIG", "GET", *ALWAYS_SETTINGS),
        )
        replica_replies = infos[: len(replica_commands)]
        infos = infos[len(replica_commands) :]
        facts: dict[str, str] = {}
        for reply in infos:
            if isinstance(reply, ServerError):
                raise RedisUnavailable(f"Redis at {connection.address} refuses INFO: {reply.code}")
            facts |= parse_info(reply)
        if not {"run_id", "role", "master_replid"} <= facts.keys():
            raise RedisUnavailable(
                f"Redis at {connection.address} does not report its run_id: is it a proxy?"
            )
        server = ServerInfo(
            f"{facts['run_id']}-{facts['master_replid']}",
            facts["role"],
            int(facts.get("connected_slaves", 0)),
            facts.get("master_replid2", "0").strip("0") != "",
            int(facts.get("used_memory", 0)),
            int(facts.get("maxmemory", 0)),
            has_waitaof(facts),
            _read_view(replica_replies),
        )
        report = read_settings(config, facts, self._allowed_trust)
        is_trusted = not report.trusted.isdisjoint(REQUIRED_SETTINGS[self.tier])
        self._set_trust(self._allowed_trust if is_trusted else "")
        error = await self._describe_unmet_settings(connection, report, facts, server)
        if not error and self._min_replicas:
            error = self._describe_replicas(server, *replica_replies[1:])
        return server._replace(trust=self.trust, durability_error=error)

    def _describe_replicas(
        self, server: ServerInfo, record: object, wait: object, wait_aof: object
    ) -> str:
        if isinstance(record, ServerError) or server.view is None:
            return "Redis does not allow to check the replicas: allow INFO and GET in the ACL"
        for refused in (wait, wait_aof if server.can_confirm_aof else None):
            if isinstance(refused, ServerError) and server.role == "master":
                return (
                    "Redis does not allow to wait for replicas: allow `+wait +waitaof` in the ACL"
                    f" ({refused})"
                )
        value = record if isinstance(record, bytes) else None
        problem = describe_unconfirmed(
            parse_record(value), server.view, server.server_id, self._min_replicas
        )
        return f"Redis does not meet BUSYAPI_DURABILITY={self.tier}: {problem}" if problem else ""

    def _set_trust(self, trust: str) -> None:
        if trust and trust != self.trust:
            log.warning("durability_trusted", trust=trust, tier=self.tier)
        self.trust = trust

    async def _describe_unmet_settings(
        self,
        connection: RedisConnection,
        report: SettingsReport,
        facts: dict[str, str],
        server: ServerInfo,
    ) -> str:
        """Return what does not meet the tier, with what to set; "" if all does."""
        lines = report.describe_unmet(REQUIRED_SETTINGS[self.tier])
        is_primary = server.role == "master" and self.tier != "memory"
        # These checks cost writes, so they are made only when they decide.
        if is_primary and not lines and "appendonly" not in report.trusted:
            lines += await self._check_aof(connection, facts, server)
            if not lines and "appendfsync" in report.trusted:
                lines += await self._check_fsync(connection, facts, server)
        if not lines:
            return ""
        return f"Redis does not meet BUSYAPI_DURABILITY={self.tier}: {'; '.join(lines)}"

    async def _check_aof(
        self, connection: RedisConnection, facts: dict[str, str], server: ServerInfo
    ) -> list[str]:
        """Return why a restart may lose what is written now."""
        if facts.get("aof_enabled") != "1":
            return ["the append-only file is off (INFO persistence: aof_enabled)"]
        if facts.get("aof_last_write_status") != "ok":
            return [AOF_WRITE_FAILED]
        changes = _count_calls(facts, "config|set")
        if "1" in {facts.get("aof_rewrite_in_progress"), facts.get("aof_rewrite_scheduled")}:
            is_active = await self._probe_aof(connection)
            if is_active is None:
                is_active = self._was_aof_active(server, changes)
            if not is_active:
                return [AOF_NOT_ACTIVE]
        self._aof_active_at = server.server_id, changes
        return []

    async def _check_fsync(
        self, connection: RedisConnection, facts: dict[str, str], server: ServerInfo
    ) -> list[str]:
        """Return why the trusted `appendfsync always` is not in force, if that shows.

            no          WAITAOF does not confirm a write
            everysec    once per second a thread syncs, for milliseconds; INFO shows it then

        WAITAOF cannot show `everysec`: Valkey 9 confirms a write that is not synced, because its
        `flushAppendOnlyFile` takes an empty buffer for a synced file. So what INFO has shown once
        counts until a CONFIG SET or a restart.
        """
        state = server.server_id, _count_calls(facts, "config|set")
        is_synced = await self._probe_aof(connection)
        (persistence,) = await connection.pipeline(("INFO", "persistence"))
        after = {} if isinstance(persistence, ServerError) else parse_info(persistence)
        pending = {info.get("aof_pending_bio_fsync", "0") for info in (facts, after)}
        if is_synced is False or pending != {"0"}:
            self._late_fsync_at = state
        return [FSYNC_NOT_ALWAYS] if self._late_fsync_at == state else []

    def _make_probe(self) -> Command:
        return make_evalsha(SET_EXPIRING, [self._key_names.probe], "1", PROBE_TTL_SECONDS)

    async def _probe_aof(self, connection: RedisConnection) -> bool | None:
        """Write a probe and return what WAITAOF confirms, None if the server refuses either.

        WAITAOF covers only the writes of its own connection: without the probe it would confirm
        nothing.
        """
        wait: Command = ("WAITAOF", 1, 0, FSYNC_TIMEOUT_MS)
        probe_reply, wait_reply = await connection.pipeline(self._make_probe(), wait)
        if isinstance(probe_reply, ServerError) or isinstance(wait_reply, ServerError):
            return None
        return bool(wait_reply[0] >= 1)

    def _was_aof_active(self, server: ServerInfo, changes: int) -> bool:
        """Return whether the AOF was active at the last check, and has not been off since.

        Switching it off and on again takes two CONFIG SETs.
        """
        if self._aof_active_at is None:
            return False
        server_id, earlier = self._aof_active_at
        return server_id == server.server_id and 0 <= changes - earlier < 2  # noqa: PLR2004 - see above


def _read_view(replies: list[Any]) -> ReplicaView | None:
    return parse_view(replies[0]) if replies and isinstance(replies[0], bytes) else None


def has_waitaof(facts: dict[str, str]) -> bool:
    """Return whether a server has WAITAOF, by the reply to INFO server."""
    # Valkey reports the version of Redis that it is compatible with.
    major, minor, *_ = (*facts.get("redis_version", "0.0").split("."), "0")
    return (int(major), int(minor)) >= FIRST_WITH_WAITAOF


def _count_calls(facts: dict[str, str], command: str) -> int:
    calls = facts.get(f"cmdstat_{command}", "").partition(",")[0]  # such as calls=3,usec=20,…
    return int(calls.removeprefix("calls=") or 0)


def parse_info(raw: bytes) -> dict[str, str]:
    """Parse a reply to INFO."""
    lines = (line.partition(":") for line in raw.decode(errors="replace").splitlines())
    return {name: value for name, _, value in lines}
