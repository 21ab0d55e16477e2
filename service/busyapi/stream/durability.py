"""Is this Redis as durable as the tier that the settings promise?"""

from typing import NamedTuple

from busyapi.errors import RedisAway
from busyapi.stream.wire import ServerError, Wire

# What each tier needs. `everysec` can lose answered writes even when only the process dies,
# and `no-appendfsync-on-rewrite yes` skips the fsync even under `always`.
ALWAYS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
NEEDS = {"fsync": ALWAYS, "replicated": ALWAYS, "memory": {"maxmemory-policy": "noeviction"}}


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


async def inspect(wire: Wire, tier: str) -> Server:
    """Ask a server who it is, and hold its settings against the tier.

    Raises:
        RedisAway: the connection failed, or the server does not tell.
    """
    *infos, config = await wire.call(
        *(("INFO", each) for each in ("server", "replication", "memory")),
        ("CONFIG", "GET", *ALWAYS),
    )
    facts: dict[str, str] = {}
    for reply in infos:
        if isinstance(reply, ServerError):
            raise RedisAway(f"Redis at {wire.address}: INFO is refused ({reply.code})")
        facts |= _info(reply)
    if not {"run_id", "role", "master_replid"} <= facts.keys():
        raise RedisAway(f"Redis at {wire.address} does not tell its run_id: is it a proxy?")
    found = Server(
        f"{facts['run_id']}-{facts['master_replid']}",
        facts["role"],
        int(facts.get("connected_slaves", 0)),
        facts.get("master_replid2", "0").strip("0") != "",
        int(facts.get("used_memory", 0)),
        int(facts.get("maxmemory", 0)),
    )
    return found._replace(weak=_weak(tier, config, found))


def _weak(tier: str, config: object, server: Server) -> str:
    if not isinstance(config, list):
        return f"Redis does not let CONFIG GET be asked, so tier {tier} cannot be checked"
    texts = [each.decode() for each in config]
    settings = dict(zip(texts[::2], texts[1::2], strict=True))
    lines = [
        f"{name} is {settings.get(name, 'unknown')}: set `{name} {wanted}`"
        for name, wanted in NEEDS[tier].items()
        if settings.get(name) != wanted
    ]
    if tier == "replicated" and server.role == "master" and server.replicas == 0:
        lines.append("no replica is connected: add one")
    if not lines:
        return ""
    return f"Redis is weaker than BUSYAPI_DURABILITY={tier}: {'; '.join(lines)}"


def _info(raw: bytes) -> dict[str, str]:
    lines = (each.partition(":") for each in raw.decode(errors="replace").splitlines())
    return {name: value for name, _, value in lines}
