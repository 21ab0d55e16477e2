"""Where a partition's primary is: one server, a Sentinel's master, or a cluster's slot owner.

Only finding differs between the three. What follows is always one plain connection to one
server, so that "which server answered" has one meaning (see `session`).
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
    """A Redis as the settings name it, and which of its keys are this installation's."""

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
    """The installation's id, "" when it has none; it is compared with the partition's record."""

    def keys(self, partition: int) -> PartitionKeys:
        """Make the names of a partition's keys."""
        return PartitionKeys(partition, self.prefix)

    async def connect(self, partition: int) -> RedisConnection:
        """Open a connection to the server that owns the partition now, scripts loaded.

        Raises:
            RedisUnavailable: no server can be found or reached.
        """
        connection = await self._open(await self._find_primary(partition))
        await connection.load_scripts()
        return connection

    async def _find_primary(self, partition: int) -> Address:
        if self.mode == "standalone":
            return self.seeds[0]
        problem = "none was asked"
        for seed in self.seeds:
            try:
                found = await self._ask_seed(seed, partition)
            except (RedisUnavailable, ServerError) as error:
                problem = str(error)
            else:
                if found:
                    return found
                problem = f"{seed[0]}:{seed[1]} does not know"
        raise RedisUnavailable(
            f"no {self.mode} node tells the primary of partition {partition}: {problem}"
        )

    async def _ask_seed(self, seed: Address, partition: int) -> Address | None:
        # Sentinels here have no password of their own, as in the common charts.
        connection = await self._open(seed, login=self.mode == "cluster")
        try:
            if self.mode == "sentinel":
                found = await connection.execute(
                    "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service
                )
                return (found[0].decode(), int(found[1])) if found else None
            slot = key_slot(self.keys(partition).state.encode())
            for low, high, primary, *_ in await connection.execute("CLUSTER", "SLOTS"):
                if low <= slot <= high:
                    # An empty host means: the one that you asked.
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
        # Checks certificate and name; trusts the system, and the CA that the settings name.
        context = ssl.create_default_context()
        if self.ca_file:
            try:
                context.load_verify_locations(self.ca_file)
            except OSError as error:  # also what is no certificate
                raise RedisUnavailable(
                    f"BUSYAPI_REDIS_CA_FILE: {error.strerror or error}"
                ) from None
        return context

    def _read_password(self) -> str:
        # Read anew at every connection: a rotated Secret is taken without a restart.
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
    """Read a Redis URL.

    Raises:
        ConfigError: it is not a URL of the three modes; the message says what one looks like.
    """
    # Not by urlsplit: newer ones take brackets (IPv6) in the first host only.
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
    seeds = tuple(_parse_address(each, DEFAULT_PORTS[mode]) for each in hosts.split(","))
    service = path.strip("/")
    if mode == "sentinel" and not service:
        raise ConfigError("BUSYAPI_REDIS_URL: a sentinel URL ends in /<name of the service>")
    if mode != "sentinel" and service not in {"", "0"}:
        raise ConfigError("BUSYAPI_REDIS_URL: only database 0 is used, as in a cluster")
    if mode == "standalone" and len(seeds) > 1:
        raise ConfigError(
            "BUSYAPI_REDIS_URL: one host only, or say redis+cluster or redis+sentinel"
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
        raise ConfigError("BUSYAPI_REDIS_URL: a host or port in it cannot be read")
    return host, port or default
