"""The address of a partition's primary: a single server, a Sentinel's master, or a slot's owner.

Only the search for it differs between the three modes. Afterwards there is always one plain
connection to one server, so that "which server answered" has one meaning (see `session`).
"""

from dataclasses import dataclass, field
from functools import partial

import structlog

from busyapi.errors import RedisUnavailable
from busyapi.stream.connect import ALL_TRIES, Tries
from busyapi.stream.connection import RedisConnection, ServerError
from busyapi.stream.credentials import DEFAULT_TLS_FILES, NO_LOGIN, Credentials, TlsFiles
from busyapi.stream.hedge import ask_in_turn
from busyapi.stream.host_lookup import HostAddresses, HostLookup, LookupFailure
from busyapi.stream.keys import PREFIX, PartitionKeys
from busyapi.stream.silent_nodes import SilentNodes
from busyapi.stream.successor import has_promoted, open_primary

log = structlog.get_logger()

Address = tuple[str, int]
_Primary = tuple[Address, LookupFailure | None]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A Redis as the settings describe it, with the prefix of this installation's keys."""

    mode: str
    hosts: tuple[Address, ...]
    service: str = ""
    login: Credentials = NO_LOGIN
    sentinel_login: Credentials = NO_LOGIN
    """The login of the Sentinels, which do not know the users of their servers."""
    tls: bool = False
    tls_files: TlsFiles = DEFAULT_TLS_FILES
    trust: str = ""
    """What is not checked if the server refuses CONFIG GET (see `unchecked_settings`)."""
    prefix: str = PREFIX
    """The first word of every key."""
    first_partition: int = 0
    """The lowest partition of this server. It identifies the server: partitions never move."""
    installation: str = ""
    """The installation's id, "" if it has no id. It is compared with the partition's record."""
    entry_version: int = 1
    """The highest version of stream entries that this process writes."""
    successors: set[str] = field(default_factory=set, repr=False, compare=False)
    """The servers that may have replaced the primary before the Sentinels name them."""
    silent_nodes: SilentNodes = field(default_factory=SilentNodes, repr=False, compare=False)
    _failures: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)
    """One number: how often the primary could not be reached."""
    _lookup: HostLookup = field(default_factory=HostLookup, repr=False, compare=False)
    _archives: dict[int, str] = field(default_factory=dict, repr=False, compare=False)
    """By partition: the archive in its record, as a server that was found by name had it last."""

    def key_names(self, partition: int) -> PartitionKeys:
        """Return the names of a partition's keys."""
        decider = partition if self.mode == "cluster" else self.first_partition
        return PartitionKeys(partition, self.prefix, decider)

    @property
    def decider_keys(self) -> PartitionKeys:
        """The keys of the partition whose flusher decides for this server, if it is no cluster."""
        return self.key_names(self.first_partition)

    async def connect(self, partition: int, archive_id: str = "") -> RedisConnection:
        """Connect to the server that owns the partition now, and load the scripts.

        `archive_id` is the archive in the partition's record, if the caller knows it.

        Raises:
            RedisUnavailable: no server was found, or it cannot be reached.
        """
        address, failure = await self._find_primary(partition)
        try:
            if self.mode == "sentinel":
                connection = await open_primary(self.open_server, address, self.successors)
            else:
                connection = await self.open_server(address)
        except RedisUnavailable:
            # Ask another Sentinel first: one may name a former primary until that is back.
            self._failures[0] += 1
            raise
        connection.lookup_failure = failure or connection.lookup_failure
        await self._check_owner(connection, partition, archive_id)
        if connection.lookup_failure:
            detail = str(connection.lookup_failure)
            log.warning("dns_lookup_failed", detail=detail, address=connection.ip)
        await connection.load_scripts()
        return connection

    async def recheck(
        self, connection: RedisConnection, partition: int, archive_id: str = ""
    ) -> None:
        """Check again a connection to a server that was found by a last address.

        It must not outlast the failure of the DNS: the name may have moved to another server.

        Raises:
            RedisUnavailable: connect again, because the lookup works, or `connect` would refuse.
        """
        failure = connection.lookup_failure
        if failure is None:
            return
        if self._lookup.has_recovered(failure.host):
            await connection.close()
            raise RedisUnavailable(f"the DNS lookup of {failure.host} works again")
        await self._check_owner(connection, partition, archive_id)

    async def _check_owner(
        self, connection: RedisConnection, partition: int, archive_id: str
    ) -> None:
        """If a lookup failed, check that the server holds the partition's record, and its flusher.

        The last address of a host may belong to another server by now. A flusher would take an
        empty one for a server that has lost its data, and give up usages that the right one holds.
        An API process would commit to a former primary that no flusher reads any more.
        """
        key_names = self.key_names(partition)
        record, lease = await connection.pipeline(
            ("HMGET", key_names.state, "archive_id"), ("GET", key_names.lease)
        )
        holder = record[0].decode() if isinstance(record, list) and record[0] else ""
        if connection.lookup_failure is None:
            self._archives[partition] = holder or self._archives.get(partition, "")
            return
        problem = ""
        if not holder or holder != (archive_id or self._archives.get(partition)):
            problem = f"it does not hold the record of partition {partition}"
        elif not archive_id and not (
            isinstance(lease, bytes) and lease.startswith(f"{holder}:".encode())
        ):
            problem = f"no flusher holds the lease of partition {partition} there"
        if problem:
            await connection.close()
            raise RedisUnavailable(
                f"{connection.lookup_failure}; the server at the last address, {connection.ip}, may"
                f" be another one: {problem}"
            )

    async def _find_primary(self, partition: int) -> _Primary:
        """Return an address, and why the lookup of the node that knows it failed.

        A node that was removed has no name any more, and its last address may belong to a node of
        others. So nodes whose lookup works are asked first.
        """
        if self.mode == "standalone":
            return self.hosts[0], None
        problems: dict[str, None] = {}  # in order, each once
        queried_nodes = set()
        login = self.sentinel_login if self.mode == "sentinel" else self.login
        self._lookup.start_all(host for host, _ in self.hosts)
        first = self._failures[0] % len(self.hosts)

        async def ask(node: Address, *, may_use_last: bool) -> _Primary | None:
            target = await self._lookup.resolve(node[0])
            if target.failure and not may_use_last:
                return None
            queried_nodes.add(node)
            try:
                connection = await self.open_server(node, login, target)
                try:
                    address = await self._query_primary(connection, node, partition)
                finally:
                    await connection.close()
            except (RedisUnavailable, ServerError) as error:
                problems[str(error)] = None
                return None
            if address is None:
                problems[f"{node[0]}:{node[1]} does not know"] = None
            return address and (address, target.failure)

        for may_use_last in (False, True):
            left = [n for n in self.hosts[first:] + self.hosts[:first] if n not in queried_nodes]
            if known := await ask_in_turn(left, partial(ask, may_use_last=may_use_last)):
                return known
        raise RedisUnavailable(
            f"no {self.mode} node knows the primary of partition {partition}: {'; '.join(problems)}"
        )

    async def _query_primary(
        self, connection: RedisConnection, node: Address, partition: int
    ) -> Address | None:
        if self.mode == "sentinel":
            reply = await connection.execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
            return (reply[0].decode(), int(reply[1])) if reply else None
        # 6 MiB and a tenth of a second of CPU, which only a Redis Cluster needs.
        from redis.crc import key_slot  # noqa: PLC0415

        slot = key_slot(self.key_names(partition).state.encode())
        for low, high, primary, *_ in await connection.execute("CLUSTER", "SLOTS"):
            if low <= slot <= high:
                # An empty host is the node that was asked.
                return ((primary[0] or b"").decode() or node[0], int(primary[1]))
        return None

    async def has_successor(self, address: str) -> bool:
        """Return whether one of the known servers has replaced the primary at an address."""
        return await has_promoted(self.open_server, self.successors - {address})

    async def open_server(
        self,
        address: Address,
        credentials: Credentials | None = None,
        target: HostAddresses | None = None,
        tries: Tries = ALL_TRIES,
    ) -> RedisConnection:
        """Connect to any server, by default with the login of Redis, without the scripts.

        Raises:
            RedisUnavailable: it cannot be reached, or the login fails.
        """
        host, port = address
        target = target or await self._lookup.resolve(host)
        if not target.addresses:
            raise RedisUnavailable(f"no connection to Redis: {target.failure}")
        try:
            connection = await RedisConnection.open(
                host,
                port,
                target.addresses,
                login=(credentials or self.login).read_login(),
                context=self.tls_files.make_context() if self.tls else None,
                tries=tries,
            )
        except RedisUnavailable as error:
            if not target.failure:
                raise
            why = f"{target.failure}; at its last address, {target.addresses[0]}: {error}"
            raise RedisUnavailable(why) from None
        connection.lookup_failure = target.failure
        if not target.failure:
            self._lookup.remember(host, connection.ip)
        return connection
