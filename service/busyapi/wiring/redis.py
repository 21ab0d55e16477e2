"""Builds the Redis servers that both roles use."""

from dataclasses import replace

from busyapi.settings import Settings
from busyapi.stream.credentials import SENTINEL_PASSWORD_FILE, Credentials, TlsFiles
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.entry import STAMPED_VERSION, VERSION
from busyapi.stream.redis_url import parse_redis_url
from busyapi.stream.servers import RedisServers, parse_servers


def make_servers(settings: Settings) -> RedisServers:
    """Return the servers that the settings describe.

    Raises:
        ConfigError: a URL, or the files of TLS, cannot be used; or a partition has no server.
    """
    sentinel_login = Credentials(
        username=settings.redis_sentinel_username,
        password=settings.redis_sentinel_password,
        password_file=settings.redis_sentinel_password_file,
        setting=SENTINEL_PASSWORD_FILE,
    )
    version = STAMPED_VERSION if settings.writer_salt_file else VERSION

    def make_endpoint(url: str) -> Endpoint:
        endpoint = parse_redis_url(
            url,
            username=settings.redis_username,
            password=settings.redis_password,
            password_file=settings.redis_password_file,
            tls_files=TlsFiles(
                ca_file=settings.redis_ca_file,
                cert_file=settings.redis_cert_file,
                key_file=settings.redis_key_file,
            ),
            prefix=settings.key_prefix,
            installation=settings.installation,
        )
        return replace(
            endpoint,
            sentinel_login=sentinel_login,
            trust=settings.redis_trust,
            entry_version=int(version),
        )

    servers = parse_servers(settings.redis_url, make_endpoint)
    servers.require(range(settings.partitions))
    return servers
