"""Builds the Redis endpoint that both roles use."""

from dataclasses import replace

from busyapi.settings import Settings
from busyapi.stream.credentials import SENTINEL_PASSWORD_FILE, Credentials, TlsFiles
from busyapi.stream.endpoint import Endpoint, parse_redis_url
from busyapi.stream.entry import STAMPED_VERSION, VERSION


def make_endpoint(settings: Settings) -> Endpoint:
    """Return the endpoint that the settings describe.

    Raises:
        ConfigError: the URL, or the files of TLS, cannot be used.
    """
    endpoint = parse_redis_url(
        settings.redis_url,
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
    sentinel_login = Credentials(
        username=settings.redis_sentinel_username,
        password=settings.redis_sentinel_password,
        password_file=settings.redis_sentinel_password_file,
        setting=SENTINEL_PASSWORD_FILE,
    )
    version = STAMPED_VERSION if settings.writer_salt_file else VERSION
    return replace(
        endpoint,
        sentinel_login=sentinel_login,
        trust=settings.redis_trust,
        entry_version=int(version),
    )
