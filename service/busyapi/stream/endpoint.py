"""The address of a partition's primary: a single server, a Sentinel's master, or a slot's owner.

Only the search for it differs between the three modes. Afterwards there is always one plain
connection to one server, so that "which server answered" has one meaning (see `session`).
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from redis.crc import key_slot

from busyapi.errors import ConfigError, RedisUnavailable
from busyapi.stream.connection import Login, RedisConnection, ServerError
from busyapi.stream.keys import PREFIX, PartitionKeys, check_prefix

MODES = {"redis": "standalone", "redis+sentinel": "sentinel", "redis+cluster": "cluster"}
DEFAULT_PORTS = {"standalone": 6379, "sentinel": 26379, "cluster": 6379}

Address = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A Redis as the settings describe it, with the prefix of this installation's keys."""

    mode: str
    seeds: tuple[Address, ...]
    service: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    tls: bool = False
    ca_file: str = ""
    prefix: str = PREFIX
    """The first word of every key."""
    installation: str = ""
    """The installation's id, "" if it has no id. It is compared with the partition's record."""

    def keys(self, partition: int) -> PartitionKeys:
        """Return the names of a partition's keys."""
        return PartitionKeys(partition, self.prefix)

    async def connect(self, partition: int) -> RedisConnection:
        """Connect to the server that owns the partition now, and load the scripts.

        Raises:
            RedisUnavailable: no server was found, or it cannot be reached.
        """
        connection = await self._open(await self._find_primary(partition))
        await connection.load_scripts()
        return connection

    async def _find_primary(self, partition: int) -> Address:
        if self.mode == "standalone":
            return self.seeds[0]
        problem = "there is no node to ask"
        for seed in self.seeds:
            try:
                address = await self._query_seed(seed, partition)
            except (RedisUnavailable, ServerError) as error:
                problem = str(error)
            else:
                if address:
                    return address
                problem = f"{seed[0]}:{seed[1]} does not know"
        raise RedisUnavailable(
            f"no {self.mode} node knows the primary of partition {partition}: {problem}"
        )

    async def _query_seed(self, seed: Address, partition: int) -> Address | None:
        # Sentinels have no password of their own, as in the common charts.
        connection = await self._open(seed, login=self.mode == "cluster")
        try:
            if self.mode == "sentinel":
                reply = await connection.execute(
                    "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service
                )
                return (reply[0].decode(), int(reply[1])) if reply else None
            slot = key_slot(self.keys(partition).state.encode())
            for low, high, primary, *_ in await connection.execute("CLUSTER", "SLOTS"):
                if low <= slot <= high:
                    # An empty host is the node that was asked.
                    return ((primary[0] or b"").decode() or seed[0], int(primary[1]))
            return None
        finally:
            await connection.close()

    async def _open(self, address: Address, *, login: bool = True) -> RedisConnection:
        secret = self._read_password() if login else ""
        return await RedisConnection.open(
            *address,
            login=Login(self.username, secret) if secret or (login and self.username) else None,
            context=self._ssl_context() if self.tls else None,
        )

    def _ssl_context(self) -> ssl.SSLContext:
        # The default context checks certificate and name, and trusts the system's CAs.
        context = ssl.create_default_context()
        if self.ca_file:
            try:
                context.load_verify_locations(self.ca_file)
            except OSError as error:  # includes an invalid certificate
                raise RedisUnavailable(
                    f"BUSYAPI_REDIS_CA_FILE: {error.strerror or error}"
                ) from None
        return context

    def _read_password(self) -> str:
        # Read at every connection, so that a rotated Secret takes effect without a restart.
        if not self.password_file:
            return self.password
        try:
            return Path(self.password_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise RedisUnavailable(f"BUSYAPI_REDIS_PASSWORD_FILE: {error.strerror}") from None
        except UnicodeDecodeError:
            raise RedisUnavailable("BUSYAPI_REDIS_PASSWORD_FILE is not UTF-8") from None


def parse_redis_url(
    url: str,
    *,
    username: str = "",
    password: str = "",
    password_file: str = "",
    ca_file: str = "",
    prefix: str = PREFIX,
    installation: str = "",
) -> Endpoint:
    """Parse a Redis URL.

    Raises:
        ConfigError: the URL has none of the three forms; the message shows them.
    """
    # Not urlsplit: newer versions accept brackets (IPv6) in the first host only.
    scheme, _, rest = url.partition("://")
    netloc, _, path = rest.partition("/")
    scheme = scheme.lower()
    tls = scheme.startswith("rediss")
    mode = MODES.get(scheme.replace("rediss", "redis", 1))
    if mode is None or not netloc:
        raise ConfigError(
            "BUSYAPI_REDIS_URL must look like redis://host:6379,"
            " redis+sentinel://host:26379,host:26379/service or redis+cluster://host:6379,host:6379"
        )
    userinfo, _, hosts = netloc.rpartition("@")
    user, _, secret = userinfo.partition(":")
    seeds = tuple(_parse_address(host, DEFAULT_PORTS[mode]) for host in hosts.split(","))
    service = path.strip("/")
    if mode == "sentinel" and not service:
        raise ConfigError("BUSYAPI_REDIS_URL: a sentinel URL must end in /<name of the service>")
    if mode != "sentinel" and service not in {"", "0"}:
        raise ConfigError("BUSYAPI_REDIS_URL: busyapi uses only database 0, as a cluster does")
    if mode == "standalone" and len(seeds) > 1:
        raise ConfigError(
            "BUSYAPI_REDIS_URL must name one host only, or use redis+cluster or redis+sentinel"
        )
    return Endpoint(
        mode=mode,
        seeds=seeds,
        service=service,
        username=username or unquote(user),
        password=password or unquote(secret),
        password_file=password_file,
        tls=tls,
        ca_file=ca_file,
        prefix=check_prefix(prefix),
        installation=installation,
    )


def _parse_address(text: str, default: int) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ConfigError("BUSYAPI_REDIS_URL has an invalid host or port")
    return host, port or default
